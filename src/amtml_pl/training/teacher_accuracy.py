"""How well a teacher with weights of its own names the run's images."""

from __future__ import annotations

from amtml_pl.data.module import PackedDataModule
from amtml_pl.teachers.live import measured_accuracy
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.settings import Settings


def measure_teacher(
    teacher: SelectedTeacher, data: PackedDataModule, settings: Settings, split: str
) -> float:
    """Accuracy of a teacher with weights of its own, measured once and kept beside the teachers."""
    rows = data.val_split() if split == "val" else data.test_split()
    images = {
        "digest": data.digest,
        "split": split,
        "seed": settings.data.seed,
        "val_size": settings.data.val_size,
    }
    identity = {"teacher": teacher.identity(), "data": images}
    return measured_accuracy(
        teacher.load, data.eval_batches(rows), settings.teachers_root / "measured", identity
    )
