"""Summands of a step's loss, and the parameter groups that each trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.types import Step


@dataclass(frozen=True)
class LossComponent:
    """Summand of a step's loss.

    Attributes:
        name: of the loss term, or of what the method adds to the terms.
        value: times its coefficient, with its graph.
        trains: names of `StudentModule.trainable_groups` that it should train; a name that is missing there
            has no trainable parameter.
    """

    name: str
    value: Float[Tensor, ""]
    trains: tuple[str, ...]


@dataclass(frozen=True)
class StepBreakdown:
    """Step before it is taken.

    Attributes:
        components: the summands with a coefficient that is not 0.
        step: the input of the terms; None where several networks have one each.
    """

    components: Sequence[LossComponent]
    step: Step | None = None


def trainable(owners: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters of each module that has any."""
    found = {name: [p for p in module.parameters() if p.requires_grad] for name, module in owners.items()}
    return {name: parameters for name, parameters in found.items() if parameters}
