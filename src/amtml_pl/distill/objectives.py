"""A training step taken apart: what it minimises, summand by summand, and whom each summand is to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Step


@dataclass(frozen=True)
class LossComponent:
    """One summand of what a step minimises.

    Attributes:
        name: of the loss term, or of what the method adds to the terms.
        value: times its coefficient, with its graph.
        trains: names of the module's parts, as `amtml_pl.distill.module.StudentModule.parts` has them, that
            it claims to train; a name that is not there claims what has nothing to learn with.
    """

    name: str
    value: Float[Tensor, ""]
    trains: tuple[str, ...]


@dataclass(frozen=True)
class StepBreakdown:
    """A step before it is taken; the summands whose coefficient is not 0, and what the terms looked at."""

    objectives: Sequence[LossComponent]
    step: Step | None = None
