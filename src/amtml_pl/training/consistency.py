"""What a run refuses to begin or to go on with: other classes, other images, other teachers than it says."""

from __future__ import annotations

from collections.abc import Mapping

from amtml_pl.data.packing import PackedDataset
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord, TeacherFacts
from amtml_pl.training.settings import DatasetOptions


def check_classes(dataset: DatasetOptions, packed: PackedDataset) -> None:
    """Refuses a data set whose classes are not as many as the configuration says."""
    if len(packed.classes) != dataset.num_classes:
        raise UserError(
            f"The data set {dataset.name!r} has {len(packed.classes)} classes "
            f"({', '.join(packed.classes[:5])}, ...); dataset.num_classes is {dataset.num_classes}.",
            fix=f"dataset.num_classes={len(packed.classes)}",
        )


def refuse_other_pixels(record: RunRecord, digest: str | None, folder: RunFolder) -> None:
    """Refuses what was trained before the images changed: its validation split was another."""
    if digest is not None and record.dataset.digest != digest:
        raise UserError(
            f"{folder.path} was trained on other images of {record.dataset.name!r} "
            f"(digest {record.dataset.digest[:12]}) than are packed now ({digest[:12]}).",
            fix=f"start it over: {record.command} force=true",
        )


def refuse_other_teachers(record: RunRecord, teachers: Mapping[str, TeacherFacts], folder: RunFolder) -> None:
    """Refuses to go on with a run whose teachers were trained anew meanwhile."""
    for name, facts in teachers.items():
        then = record.teachers[name].weights_digest if name in record.teachers else None
        if then != facts.weights_digest:
            raise UserError(
                f"{folder.path} began with other weights of teacher {name!r} (digest {str(then)[:12]}) than "
                f"there are now ({facts.weights_digest[:12]}).",
                fix=f"start it over: {record.command} force=true",
            )
