"""What an exported student says of itself, from what its run has recorded."""

from __future__ import annotations

from omegaconf import OmegaConf

from amtml_pl.results.checkpoints import Which
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
        classes=record.dataset.classes,
        image_size=int(about.image_size),
        mean=tuple(map(float, about.mean)),
        std=tuple(map(float, about.std)),
        network=network,
        precision="float32",
        run=f"{run.path.parent.name}/{run.path.name}",
        experiment=record.experiment or "",
        seed=record.seed,
        checkpoint=checkpoint,
        commit="" if record.git is None else record.git.commit,
        dataset=record.dataset.name,
        data_digest=record.dataset.digest,
        metrics={name: record.metrics[f"{name}{ending}"] for name in ("val/acc", "test/acc")},
    )
