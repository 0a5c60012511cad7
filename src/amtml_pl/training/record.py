"""Record of a run before its fit: what is trained, on what, by which code."""

from __future__ import annotations

from typing import Any

import torch

from amtml_pl.models.taps import cost
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.runs.record import DatasetFacts, NetworkFacts, RunRecord
from amtml_pl.system.ranks import world_size
from amtml_pl.teachers.live import weights_digest
from amtml_pl.training.stages import Ready


def describe(ready: Ready) -> RunRecord:
    """Return the record of a run before its first step."""
    request, module, data = ready.request, ready.module, ready.data
    settings, method = request.settings, request.settings.method
    has_teachers = bool(ready.teachers)
    return RunRecord(
        status="interrupted",
        experiment=request.experiment,
        seed=settings.seed,
        study=settings.study(),
        command=request.command,
        git=git_state(),
        versions=versions(),
        processes=world_size(),
        threads=torch.get_num_threads(),
        dataset=DatasetFacts(
            name=settings.dataset.name, digest=data.digest, sizes=data.sizes, classes=data.classes
        ),
        student=NetworkFacts(
            network=method.student.target, **vars(cost(module.student, settings.dataset.image_size))
        ),
        teachers=dict(ready.facts),
        teacher_source=("cached" if settings.cached else "live") if has_teachers else None,
        loop=method.loop.target,  # some weigh the teachers themselves
        weighting=method.weighting.target if has_teachers else None,
        loss=dict(module.coef),
        temperature=method.temperature,
        budget=budget(ready),
    )


def budget(ready: Ready) -> dict[str, Any]:
    """Return a run's budget and starting point, equal for all methods of a study.

    Everything here is JSON; ``student_initial`` depends on the seed, all else does not.
    """
    settings, module = ready.request.settings, ready.module
    data, trainer = settings.data, settings.trainer
    return {
        "epochs": trainer.epochs,
        "batch_size": data.batch_size,
        "views": data.views,
        "train_images": ready.data.sizes["train"],
        "augment": str(data.augment),
        "mixup": data.mixup,
        "optimizer": str(settings.method.optimizer),
        "scheduler": str(settings.method.scheduler),
        "precision": trainer.precision,
        "gradient_clip_val": trainer.gradient_clip_val,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "label_smoothing": max(
            getattr(term, "label_smoothing", 0.0) for term in module.loss_terms().values()
        ),
        "weights_from_validation_labels": module.needs_held_out,
        "networks_trained": module.networks_trained,
        "student_initial": weights_digest(module.student.network)[:16],
    }
