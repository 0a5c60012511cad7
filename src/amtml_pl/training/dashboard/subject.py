"""What the dashboard has to be told of a run before its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import Mixture
from amtml_pl.runs.record import RunRecord


@dataclass(frozen=True)
class Subject:
    """A run that is about to be fitted.

    Attributes:
        lr: the student's learning rate at the beginning; None where its optimizer has none.
        held_out: ``(N, M, K)``, the teachers' logits for the validation images; None where nobody has asked
            for them yet.
        gradient_share: what the doctor has measured of each term; empty where it was not asked.
    """

    about: RunRecord
    classes: tuple[str, ...]
    image_size: int
    temperature: float
    mixture: Mixture
    lr: float | None
    accuracy: Mapping[str, Mapping[str, float]]
    held_out: Float[Tensor, "N M K"] | None = None
    gradient_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Their names in order."""
        return tuple(self.about.teachers)
