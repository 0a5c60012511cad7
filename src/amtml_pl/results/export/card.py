"""What an exported student says of itself, from what its run has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from amtml_pl.results.checkpoints import Which
from amtml_pl.results.evaluation.images import classes_of
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.network import without_beginnings
from amtml_pl.results.run import FinishedRun


def card_of_run(run: FinishedRun, checkpoint: Which) -> ModelCard:
    """What a run's student says of itself in a file.

    Args:
        run: a completed one.
        checkpoint: which epoch's weights.
    """
    record, about = run.record, run.config.dataset
    ending = "" if checkpoint == "best" else "_last"
    network = without_beginnings(OmegaConf.to_container(run.config.student.network, resolve=True))
    return ModelCard(
        classes=classes_of(run) or tuple(map(str, range(about.num_classes))),
        image_size=int(about.image_size),
        mean=tuple(map(float, about.mean)),
        std=tuple(map(float, about.std)),
        network=network,
        precision="float32",
        run=f"{run.path.parent.name}/{run.path.name}",
        experiment=str(record["experiment"] or ""),
        seed=record["seed"],
        checkpoint=checkpoint,
        commit=commit_of(record),
        dataset=str(record["dataset"]["name"]),
        data_digest=str(record["dataset"]["digest"]),
        metrics={name: float(record["metrics"][f"{name}{ending}"]) for name in ("val/acc", "test/acc")},
    )


def commit_of(record: Mapping[str, Any]) -> str:
    """The commit that a run was trained by; empty where it was in no checkout."""
    git = record.get("git")
    return str(git.get("commit", "")) if isinstance(git, Mapping) else ""
