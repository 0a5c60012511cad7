"""Check, before a run begins, that its step trains what it claims to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from amtml_pl.distill.doctor.finding import Finding
from amtml_pl.distill.doctor.gradients import gradient_findings, gradient_norms, outweighing, shares
from amtml_pl.distill.doctor.held import frozen_findings, optimizer_findings
from amtml_pl.distill.doctor.targets import head_findings, target_findings
from amtml_pl.distill.doctor.weights import order_findings, weight_findings
from amtml_pl.distill.module import StudentModule
from amtml_pl.models.layout import eager_execution
from amtml_pl.models.taps import modes_restored
from amtml_pl.types import Batch

SHARE_SAMPLES = 32


@dataclass(frozen=True)
class StepExamination:
    """Findings on a training step; not ``whole`` if a teacher is not frozen."""

    findings: Sequence[Finding] = ()
    warnings: Sequence[str] = ()
    share: Mapping[str, float] = field(default_factory=dict)
    whole: bool = True


def examine(module: StudentModule, batch: Batch) -> StepExamination:
    """Examine a training step on two images or more, without taking it.

    Parameters, running statistics, random state and accounts stay unchanged.
    """
    if findings := [*frozen_findings(module)]:  # nothing else can be trusted then
        return StepExamination(findings, whole=False)
    findings = [*optimizer_findings(module)]
    findings += [Finding(name, what) for name, what in module.self_check()]
    with as_it_was(module):
        dissection = module.break_down(batch)
        parts = module.trainable_groups()
        norms = {each.name: gradient_norms(each, parts) for each in dissection.components}
        for objective in dissection.components:
            findings += gradient_findings(objective, norms[objective.name])
        if module.teacher_source is not None and len(module.teacher_source.names) == 1:
            # One teacher has nothing to be weighed against.
            findings = [finding for finding in findings if not finding.name.startswith("idle-for-the-")]
        if dissection.step is not None:
            terms = {name: term for name, term in module.loss_terms().items() if module.coef[name]}
            findings += weight_findings(dissection.step, terms, parts.get("student", []))
            if module.weighting is not None:
                findings += order_findings(dissection.step, terms, module.weighting, module.seed_step)
            findings += target_findings(dissection.step, terms)
            findings += head_findings(dissection.step, module.heads)
    reaching = {
        o.name: norms[o.name].get("student", 0.0) for o in dissection.components if "student" in o.trains
    }
    return StepExamination(findings, [*outweighing(reaching)], shares(reaching))


def gradient_shares(module: StudentModule, batch: Batch) -> dict[str, float]:
    """Return each objective's share of the student's gradient; the fit is unchanged."""
    # The share of mixup has no dimension.
    some = batch.map(lambda tensor: tensor[:SHARE_SAMPLES] if tensor.ndim else tensor)
    with as_it_was(module):
        parts = {"student": module.trainable_groups()["student"]}
        objectives = [each for each in module.break_down(some).components if "student" in each.trains]
        return shares({each.name: gradient_norms(each, parts)["student"] for each in objectives})


@contextmanager
def as_it_was(module: StudentModule) -> Iterator[None]:
    """Use training mode inside, uncompiled; restore modes, buffers, accounts and random numbers."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    seconds = module.spent.teacher_seconds
    with torch.random.fork_rng(), modes_restored(module), eager_execution():
        module.train()
        try:
            yield
        finally:
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
            module.spent.teacher_seconds = seconds
