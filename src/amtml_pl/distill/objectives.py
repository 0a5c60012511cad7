"""Parts of a training step: each summand of the loss, and what it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Step


@dataclass(frozen=True)
class LossComponent:
    """Summand of a step's loss.

    Attributes:
        name: of the loss term, or of what the method adds to the terms.
        value: times its coefficient, with its graph.
        trains: names of the module's parts, as `StudentModule.trainable_groups` has them, that it claims to
            train; a name that is missing there has nothing that can be trained.
    """

    name: str
    value: Float[Tensor, ""]
    trains: tuple[str, ...]


@dataclass(frozen=True)
class StepBreakdown:
    """Step before it is taken: summands with a coefficient, and the terms' input."""

    components: Sequence[LossComponent]
    step: Step | None = None
