"""Facts of a run that its dashboard shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from amtml_pl.runs.record import RunRecord
from amtml_pl.types import Mixture


@dataclass(frozen=True)
class RunContext:
    """Facts of a run that is about to be fitted.

    Attributes:
        lr: the student's initial learning rate; None if its optimizer has none.
        accuracy: of each teacher by split, in [0, 1].
        held_out: ``(N, M, K)``, the teachers' logits for the validation images; None if not in the cache.
        gradient_share: of each term, as measured by the doctor; empty if it was not run.
    """

    about: RunRecord
    classes: tuple[str, ...]
    temperature: float
    mixture: Mixture
    lr: float | None
    accuracy: Mapping[str, Mapping[str, float]]
    held_out: Float[Tensor, "N M K"] | None = None
    gradient_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Return the names of the teachers in order."""
        return tuple(self.about.teachers)

    @property
    def all_logits(self) -> bool:
        """Return True if every teacher has logits."""
        return all(facts.has_logits for facts in self.about.teachers.values())
