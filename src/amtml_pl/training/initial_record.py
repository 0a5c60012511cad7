"""Record of a run before its fit: network, data, method, code and machine."""

from __future__ import annotations

import torch

from amtml_pl.config.schema import WATCHING
from amtml_pl.models.taps import cost
from amtml_pl.runs.identity import study_of_start
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.runs.record import DatasetFacts, NetworkFacts, OriginFacts, RunRecord
from amtml_pl.system.ranks import world_size
from amtml_pl.teachers.live import weights_digest
from amtml_pl.training.stages import Ready


def initial_record(ready: Ready) -> RunRecord:
    """Return the record of a run before its first step."""
    request, module, data = ready.request, ready.module, ready.data
    settings, method, dataset = request.settings, request.settings.method, request.settings.dataset
    trainer, terms = settings.trainer.trainer.plain(), module.loss_terms().values()
    origin = ready.prepared.plan.origin
    start = None if settings.init_from is None else study_of_start(str(settings.init_from))
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
        dataset=DatasetFacts(name=dataset.name, digest=data.digest, sizes=data.sizes, classes=data.classes),
        student=NetworkFacts(network=method.student.target, **vars(cost(module.student, dataset.image_size))),
        teachers=dict(ready.facts),
        teacher_source=("cached" if settings.cached else "live") if ready.teachers else None,
        loop=method.loop.target,  # some loops weight the teachers themselves
        weighting=method.weighting.target if ready.teachers else None,
        loss=dict(module.coef),
        temperature=method.temperature,
        execution=ready.prepared.execution,
        debug=settings.debug,
        origin=None
        if origin is None
        else OriginFacts(
            folder=str(origin.folder.path.resolve()), study=origin.record.study, epochs=origin.epochs
        ),
        budget={  # equal for all methods of a study; only ``student_initial`` depends on the seed
            "epochs": settings.trainer.epochs,
            "batch_size": settings.data.batch_size,
            "views": settings.data.views,
            "train_images": data.sizes["train"],
            "augment": str(settings.data.augment),
            "mixup": settings.data.mixup,
            "balanced": settings.data.balanced,
            "class_weights": str(next(filter(None, (term.class_weights for term in terms)), None)),
            "optimizer": str(method.optimizer),
            "scheduler": str(method.scheduler),
            "precision": str(trainer.get("precision", "32-true")),
            "gradient_clip_val": trainer.get("gradient_clip_val"),
            "accumulate_grad_batches": trainer.get("accumulate_grad_batches", 1),
            "label_smoothing": max(term.label_smoothing for term in terms),
            "weights_from_validation_labels": module.needs_held_out,
            "callbacks": ", ".join(
                f"{name} {spec}"
                for name, spec in settings.trainer.callbacks.items()
                if spec.target not in WATCHING
            ),
            "networks_trained": module.networks_trained,
            "selection": "best" if data.has_validation else "last",
            "extended_from_epochs": 0 if origin is None else origin.epochs,
            "init_from": "none" if start is None else start[:16],
            "student_initial": weights_digest(module.student.network)[:16],
        },
    )
