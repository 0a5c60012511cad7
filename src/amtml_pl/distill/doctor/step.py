"""Check, before a run begins, that its step trains what it claims to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amtml_pl.distill.doctor.checkup import Checkup, Finding
from amtml_pl.distill.doctor.gradients import dominance_warnings, gradient_findings, gradient_norms, shares_of
from amtml_pl.distill.doctor.ownership import frozen_findings, optimizer_findings
from amtml_pl.distill.doctor.targets import head_findings, target_findings
from amtml_pl.distill.doctor.weights import order_findings, weight_findings
from amtml_pl.distill.module import StudentModule
from amtml_pl.models.layout import eager_execution
from amtml_pl.models.state import buffers_restored, modes_restored
from amtml_pl.types import Batch

SHARE_SAMPLES = 32


def check_step(module: StudentModule, batch: Batch) -> Checkup:
    """Examine a training step on two images or more, without taking it.

    Parameters, running statistics, random state and accounts stay unchanged. Teachers that are not frozen
    end the check, since nothing else can be trusted then.
    """
    if findings := [*frozen_findings(module)]:
        return Checkup(findings=tuple(findings), whole=False)
    findings = [*optimizer_findings(module)]
    findings += [Finding(name, what) for name, what in module.self_check()]
    with unchanged(module):
        breakdown, groups = module.break_down(batch), module.trainable_groups()
        reaching: dict[str, float] = {}  # the student
        for component in breakdown.components:
            norms = gradient_norms(component, groups)
            findings += gradient_findings(component, norms)
            if "student" in component.trains:
                reaching[component.name] = norms.get("student", 0.0)
        if module.teacher_source is not None and len(module.teacher_source.names) == 1:
            # The weights of one teacher are constant.
            findings = [finding for finding in findings if not finding.name.startswith("idle-for-the-")]
        if breakdown.step is not None:
            terms = {name: term for name, term in module.loss_terms().items() if module.coef[name]}
            findings += weight_findings(breakdown.step, terms, groups.get("student", []))
            if module.weighting is not None:
                findings += order_findings(breakdown.step, terms, module.weighting, module.seed_step)
            findings += target_findings(breakdown.step, terms)
            findings += head_findings(breakdown.step, module.heads)
    warnings = tuple(dominance_warnings(reaching))
    return Checkup(findings=tuple(findings), warnings=warnings, gradient_share=shares_of(reaching))


def gradient_shares(module: StudentModule, batch: Batch) -> dict[str, float]:
    """Return each component's share of the student's gradient; the fit is unchanged."""
    # The share of mixup has no dimension.
    some = batch.map(lambda tensor: tensor[:SHARE_SAMPLES] if tensor.ndim else tensor)
    with unchanged(module):
        groups = {"student": module.trainable_groups()["student"]}
        components = [each for each in module.break_down(some).components if "student" in each.trains]
        return shares_of({each.name: gradient_norms(each, groups)["student"] for each in components})


@contextmanager
def unchanged(module: StudentModule) -> Iterator[None]:
    """Use training mode inside, uncompiled; restore modes, buffers, accounts and random numbers."""
    seconds = module.spent.teacher_seconds
    with torch.random.fork_rng(), modes_restored(module), buffers_restored(module), eager_execution():
        module.train()
        try:
            yield
        finally:
            module.spent.teacher_seconds = seconds
