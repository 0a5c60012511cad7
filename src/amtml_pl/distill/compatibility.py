"""Parts of a training step, and which of them cannot work together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Batch, TeacherOutputs
from amtml_pl.weighting.scheme import Weighting


@runtime_checkable
class TeacherSource(Protocol):
    """Source of the teachers' outputs: live networks, or a cache."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the M teachers, in the order of axis 1 of their logits."""

    def to(self, device: torch.device | str) -> TeacherSource:
        """Move the networks or tensors to a device."""

    def __call__(self, batch: Batch) -> TeacherOutputs:
        """Return the teachers' outputs for exactly the images of the batch."""


def check_composition(
    terms: Mapping[str, LossTerm],
    coef: Mapping[str, float],
    teachers: TeacherSource | None,
    weighting: Weighting | None,
) -> None:
    """Raise a UserError for parts that cannot work together or would train nothing."""
    if not terms:
        raise UserError("The loss has no terms (got loss=[], expected at least one term).", fix="'loss=[ce]'")
    if missing := sorted(set(terms) - set(coef)):
        raise UserError(f"The loss terms {missing} have no coefficient.", fix=f"+coef.{missing[0]}=1.0")
    if teachers is None:
        refuse_without_teachers(terms)
        return
    if weighting is None:
        raise UserError(
            "The run has teachers but no weighting (got weighting=null).", fix="set weighting=uniform"
        )
    learned, scheme = weighting.learns, type(weighting).__name__
    if not learned and (idle := [name for name, term in terms.items() if term.needs_learned_weighting]):
        raise UserError(
            f"The loss terms {idle} need a trainable weighting of the teachers (got {scheme}).",
            fix="choose weighting=adaptive, or select a loss without these terms, such as 'loss=[ce,kd]'",
        )
    if learned and not any(term.is_weighting_objective and coef[name] for name, term in terms.items()):
        raise UserError(
            f"No loss term with a nonzero coefficient trains the weighting of the teachers, {scheme} "
            f"(got the loss terms {list(terms)}).",
            fix="add the loss terms adapter and adapter_entropy, or choose the fixed weighting=uniform",
        )
    if not any(term.needs_teachers for term in terms.values()):
        raise UserError(
            f"The run has the teachers {list(teachers.names)}, but no loss term uses them (got "
            f"{list(terms)}).",
            fix="choose a method with teachers, such as method=amtml, or train from labels with method=ce",
        )


def refuse_without_teachers(terms: Mapping[str, LossTerm]) -> None:
    """Raise a UserError for terms that need teachers, in a run without any."""
    if needing := [name for name, term in terms.items() if term.needs_teachers]:
        raise UserError(
            f"The loss terms {needing} need teachers, but the run has none.",
            fix="select teachers such as 'teacher=[resnet32,resnet56]', or use only 'loss=[ce]'",
        )


def refuse_without_logits(
    terms: Mapping[str, LossTerm], weighting: Weighting, headless: Sequence[str]
) -> None:
    """Raise a UserError for readers of logits, if teachers have none (``head=none``)."""
    reading = [name for name, term in terms.items() if term.needs_teachers and term.reads_logits]
    readers = [f"the loss term {name}" for name in reading]
    if weighting.reads_logits:
        readers.append(f"the weighting {type(weighting).__name__}")
    if headless and readers:
        raise UserError(
            f"Logits of every teacher are read by {', '.join(readers)}, but head=none gives hints alone "
            f"(teachers without logits: {list(headless)}).",
            fix=f"fit a classifier: teacher.{headless[0]}.head=linear, or read hints alone: "
            "method=rkd weighting=uniform",
        )
