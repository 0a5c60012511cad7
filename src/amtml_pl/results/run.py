"""Open a completed run to inspect it: ``from amtml_pl import load_run``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.config.build import build_object
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.models.feature_map import MapReading
from amtml_pl.models.layout import set_layout
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.results.checkpoints import CheckpointName, load_checkpoint
from amtml_pl.results.images import recorded_images
from amtml_pl.results.network import build_untrained
from amtml_pl.results.record import completed_record, read_config
from amtml_pl.results.teacher_outputs import other_outputs, training_outputs
from amtml_pl.results.teachers import RecordedTeacher
from amtml_pl.results.weighting import OwnWeighting, own_scheme
from amtml_pl.runs.epoch_table import read_epochs
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.types import SplitName, TeacherOutputs, TensorShapes


def load_run(
    folder: Path | str,
    *,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    teachers: Path | str | None = None,
) -> FinishedRun:
    """Open the folder of a completed run; read only its record and configuration.

    The folder may have moved, and its teachers may be gone.

    Args:
        folder: with ``run.json`` and ``config.yaml``, as ``amtml_pl.train`` has left it.
        data: root of raw and packed images; None takes the folder that the run recorded.
        cache: root of teachers' outputs; None likewise.
        teachers: root of trained teachers; None likewise.

    Raises:
        UserError: if the folder is not a path or not a run's, the run failed or is not finished, or its
            record is damaged or of another format.
    """
    if not isinstance(folder, str | Path):
        what = f"load_run needs the path of a folder (got {type(folder).__name__}, expected str or Path)."
        raise UserError(what, fix="pass the path that amtml_pl.train prints, or run.path of a completed run")
    run = RunFolder(Path(folder).expanduser().resolve())
    record = completed_record(run)
    config = read_config(run, record)
    given = {"data": data, "cache": cache, "teachers": teachers}
    paths = {
        name: Path(place or config["paths"][name]).expanduser().resolve() for name, place in given.items()
    }
    return FinishedRun(run.path, record, config, paths)


@dataclass(frozen=True)
class FinishedRun:
    """A completed run: its folder, ``run.json``, ``config.yaml`` as plain values, and the roots.

    Attributes:
        paths: ``data``, ``cache`` and ``teachers``.
    """

    path: Path
    record: RunRecord = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    paths: Mapping[str, Path]

    def student(self, checkpoint: CheckpointName = "best", taps: Sequence[str] = ()) -> TappedNetwork:
        """Return the trained student, in evaluation mode on the CPU, as it was configured.

        Args:
            checkpoint: of the ``best`` epoch by validation accuracy, or of the ``last`` one. Without a
                validation split, both are the last.
            taps: dotted paths of modules whose outputs are returned too.

        Raises:
            UserError: if the checkpoint is missing, damaged, or of another network.
        """
        about, own = self.config["dataset"], self.config["student"]
        execution = self.record.execution
        network = build_untrained(own["network"])
        student = TappedNetwork(
            network,
            mean=about["mean"],
            std=about["std"],
            taps=taps,
            input_size=own["input_size"],
            reading=MapReading.of(own),
        )
        set_layout(network, channels_last=execution.channels_last, compiled=execution.compile)
        load_checkpoint(student, "student", RunFolder(self.path), self.record, checkpoint)
        return student

    def metrics(self) -> dict[str, list[float | None]]:
        """Return all logged numbers by name: one value per epoch, None if not logged.

        Raises:
            UserError: if ``metrics.csv`` is missing or holds something else.
        """
        file = RunFolder(self.path).metrics_file
        try:
            rows = read_epochs(file)
            return {name: [float(row[name]) if row[name] else None for row in rows] for name in rows[0]}
        except (OSError, ValueError) as error:
            raise UserError(
                f"The table of epochs {file} cannot be read: {error}.",
                fix=f"{self.record.command} force=true",
            ) from error

    def teacher_weights(self) -> dict[str, list[float | None]]:
        """Return each teacher's mean weight by epoch, in [0, 1]; empty without teachers."""
        columns = self.metrics()
        return {name: columns[f"weight/{name}"] for name in self.teacher_names if f"weight/{name}" in columns}

    def sample_weights(
        self, split: SplitName = "train", view: int = 1, checkpoint: CheckpointName = "best"
    ) -> Float[Tensor, "N M"]:
        """Return the run's own weights of the teachers for every image of a split.

        The teachers' outputs come from the cache, the student's from a checkpoint in evaluation mode; so the
        weights are those that the checkpoint would give, not those of the step that trained on the image.

        Returns:
            ``(N, M)``, rows sum to 1, in the order of the split.

        Raises:
            UserError: as `teacher_outputs`, `student` and `own_weighting`.
        """
        outputs = self.teacher_outputs(split, view)
        rows = self.split(split)
        labels = rows.stored.labels[rows.rows]
        return self.own_weighting(checkpoint).weights(self.images(split, view), outputs, labels)

    def own_weighting(self, checkpoint: CheckpointName = "best") -> OwnWeighting:
        """Return the run's weighting at a checkpoint, with the student of that checkpoint.

        Raises:
            UserError: if the run has no teachers, or its weights belong to a whole batch or to its training
                step; or as `student`.
        """
        names = self.teacher_names
        scheme = own_scheme(self.config, names)
        student = self.student(checkpoint, taps=scheme.student_taps())
        classes, features = tap_shapes(student, self.config["dataset"]["image_size"])
        scheme.build(TensorShapes(classes=classes, teachers=names, student=features))
        load_checkpoint(scheme, "weighting", RunFolder(self.path), self.record, checkpoint)
        measured = {name: self.record.metrics.get(f"teacher/{name}/val/acc") for name in names}
        scheme.set_teacher_accuracy({name: acc for name, acc in measured.items() if acc is not None})
        return OwnWeighting(scheme, student)

    def images(
        self, split: SplitName, view: int = 0
    ) -> Iterator[tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]]:
        """Yield batches of a split's images in [0, 1], in order, with their positions.

        Args:
            split: which images.
            view: the augmented version of training images, 0 for the images themselves; the others have no
                versions.

        Raises:
            UserError: as `split`, or if the view is below 0.
        """
        if view < 0:
            what = f"The view is negative (got {view}, expected 0 or more)."
            raise UserError(what, fix="use view=0 for images without augmentation")
        rows = self.split(split)
        for index in torch.split(torch.arange(len(rows)), self.data.eval_batch_size):
            stored = rows.stored.images[rows.rows[index]]
            yield self.data.augment(stored, index, view if split == "train" else 0), index

    @property
    def cache(self) -> Path:
        """The folder of all teachers' outputs for the data set."""
        return self.paths["cache"] / str(self.config["dataset"]["name"])

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The M teachers, in the order of their outputs."""
        return tuple(self.record.teachers)

    @cached_property
    def teachers(self) -> tuple[RecordedTeacher, ...]:
        """The recorded facts of each teacher; no network is loaded."""
        nodes = self.config["teacher"]
        return tuple(
            RecordedTeacher(name, nodes[name], facts, self.paths["teachers"], self.cache)
            for name, facts in self.record.teachers.items()
        )

    @cached_property
    def data(self) -> PackedDataModule:
        """The data module with the images of the run.

        Raises:
            UserError: if they are not packed below the root of the images.
        """
        packed = recorded_images(self.path, self.record, self.paths["data"])
        make = build_object(self.config["data"], partial=True)
        module: PackedDataModule = make(packed=packed, order_seed=self.config["seed"])
        return module

    def split(self, name: SplitName) -> SplitRows:
        """Return the images of one of the run's splits.

        Raises:
            UserError: as `data`, or if there is no such split.
        """
        return self.data.split(name)

    def teacher_outputs(self, split: SplitName = "train", view: int = 1) -> TeacherOutputs:
        """Return the teachers' outputs for a whole split from the cache; no teacher is run.

        Args:
            split: ``train``, with the hints; ``val`` and ``test`` without, if they are cached.
            view: the augmented version of the training images, from 1; the others have no versions.

        Returns:
            Logits ``(N, M, K)`` and hints, in the order of the split.

        Raises:
            UserError: if the run has no teachers, or the cache no longer holds all of it.
        """
        if not self.teachers:
            what = f"The run in {self.path} has no teachers, and therefore no teacher outputs."
            raise UserError(what, fix="open a run that was trained with teachers")
        stores = () if self.record.cache is None else self.record.cache.stores
        if split == "train":
            return training_outputs(self.teachers, self.cache, stores, view)
        return other_outputs(self.teachers, self.cache, self.data.digest, self.split(split))
