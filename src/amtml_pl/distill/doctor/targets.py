"""Check that targets can be reached, and that classifiers match their teachers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from amtml_pl.distill.checked_calls import value_of
from amtml_pl.distill.doctor.checkup import Finding
from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Step, TeacherOutputs

CLOSE_ENOUGH = 0.1  # of the logits' deviation: stored in half precision they differ by 0.001, in int8 by 0.01


def target_findings(step: Step, terms: Mapping[str, LossTerm]) -> Iterator[Finding]:
    """Yield findings for terms that are not 0 at the soft targets.

    The targets come from random and clearly different teacher outputs, since those of the run may be alike.
    A term that vanishes only where the teachers agree gets the first of these outputs from every teacher.
    """
    if step.teachers is None or step.weights is None:
        return
    apart = 3 * torch.randn_like(step.teachers.logits)
    for name, term in terms.items():
        if not (term.vanishes_at_targets or term.vanishes_where_teachers_agree):
            continue
        logits = apart if term.vanishes_at_targets else apart[:, :1].expand_as(apart)
        sharp = replace(step, teachers=TeacherOutputs(step.teachers.names, logits, step.teachers.hints))
        mixture = term.mixture or "probabilities"
        targets = integrated_soft_targets(logits, step.weights.detach(), term.temperature, mixture)
        smallest = torch.finfo(targets.dtype).tiny
        perfect = replace(step.student, logits=term.temperature * targets.clamp_min(smallest).log())
        steps = (replace(sharp, student=perfect), sharp)
        value, usual = (float(value_of(name, term, each).detach()) for each in steps)
        if not abs(value) <= 1e-5 + 1e-3 * abs(usual):  # also for a nan
            yield Finding(
                f"not-zero-at-the-targets/{name}",
                f"the loss term {name!r} is not 0 for a student that matches the soft targets "
                f"(got {value:.3g}, expected 0; the untrained student has {usual:.3g})",
            )


def head_findings(step: Step, heads: Mapping[str, nn.Module]) -> Iterator[Finding]:
    """Yield findings for classifiers that do not reproduce the teacher's logits from its map."""
    if step.teachers is None:
        return
    for name, head in heads.items():
        logits = step.teachers.logits[:, step.teachers.names.index(name.partition("/")[0])]
        with torch.no_grad():
            made = head(step.teachers.hints[name])
        known = logits > -torch.inf  # both are minus infinity for the other classes
        made, logits = made[known], logits[known]
        away = float((made - logits).square().mean().sqrt() / logits.std().clamp_min(1e-6))
        if not away <= CLOSE_ENOUGH:
            yield Finding(
                f"not-the-teachers-classifier/{name}",
                f"the teacher's classifier, applied to the cached map {name!r}, does not give the teacher's "
                f"logits (got a difference of {away:.2f} standard deviations, expected 0). The map is "
                "probably pooled. To cache the whole map, set hint_pool=null, and "
                "loss.regression_confidence.grid=null if the loss has that term",
            )
