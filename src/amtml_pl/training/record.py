"""The record of a run before its fit: what is trained, on what, by which code."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.module import StudentModule
from amtml_pl.models.taps import cost
from amtml_pl.runs.identity import run_hash
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.runs.record import DatasetFacts, NetworkFacts, RunRecord, TeacherFacts
from amtml_pl.system.ranks import world_size
from amtml_pl.teachers.live import weights_digest


def describe(
    config: DictConfig,
    experiment: str | None,
    command: str,
    module: StudentModule,
    teachers: Mapping[str, TeacherFacts],
    data: PackedDataModule,
) -> RunRecord:
    """Return the record of a run that has not been fitted.

    Args:
        config: the checked configuration.
        experiment: its name.
        command: what repeats the run.
        module: with the student as it is before the first step.
        teachers: what is known of each by name: its network, its size, its weights.
        data: the run's splits.
    """
    size = config.dataset.image_size
    any_seed = deepcopy(config)
    any_seed.seed = 0
    return RunRecord(
        status="interrupted",
        experiment=experiment,
        seed=config.seed,
        study=run_hash(any_seed),
        command=command,
        git=git_state(),
        versions=versions(),
        processes=world_size(),
        threads=torch.get_num_threads(),
        dataset=DatasetFacts(
            name=config.dataset.name, digest=data.digest, sizes=data.sizes, classes=data.classes
        ),
        student=NetworkFacts(network=config.student.get("_target_"), **vars(cost(module.student, size))),
        teachers=dict(teachers),
        teacher_source=config.teacher_source if teachers else None,
        loop=config.loop.get("_target_"),  # some weigh the teachers themselves
        weighting=config.weighting.get("_target_") if teachers else None,
        loss=dict(module.coefficients),
        temperature=config.temperature,
        budget=budget(config, module, data),
    )


def budget(config: DictConfig, module: StudentModule, data: PackedDataModule) -> dict[str, Any]:
    """What a run may spend, and what it starts from: equal for all methods of a fair study.

    Everything here is JSON; ``student_initial`` depends on the seed, all else does not.
    """
    nodes: Any = OmegaConf.to_container(config, resolve=True)
    return {
        "epochs": config.trainer.max_epochs,
        "batch_size": config.data.batch_size,
        "views": config.data.views,
        "train_images": data.sizes["train"],
        "augment": readable_node(nodes["data"]["augment"]),
        "mixup": config.data.mixup,
        "optimizer": readable_node(nodes["optimizer"]),
        "scheduler": readable_node(nodes["scheduler"]),
        "precision": str(config.trainer.get("precision", "32-true")),
        "gradient_clip_val": config.trainer.get("gradient_clip_val"),
        "accumulate_grad_batches": config.trainer.get("accumulate_grad_batches", 1),
        "label_smoothing": max(getattr(term, "label_smoothing", 0.0) for term in module.loss_terms()),
        "weights_from_validation_labels": module.needs_held_out,
        "networks_trained": module.networks_trained,
        "student_initial": weights_digest(module.student.network)[:16],
    }


def readable_node(node: Mapping[str, Any] | None) -> str:
    """``SGD(lr=0.1, momentum=0.9)`` for a node with a target."""
    if node is None:
        return "none"
    arguments = ", ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))
    return f"{str(node['_target_']).rpartition('.')[2]}({arguments})"
