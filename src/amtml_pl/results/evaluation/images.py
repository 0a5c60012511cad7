"""Open the images for an evaluation, of the run's or another data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.config.build import build_object
from amtml_pl.data.augment import as_floats
from amtml_pl.data.packing import PackedDataset, pack
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.results.run import FinishedRun
from amtml_pl.types import SplitName


@dataclass(frozen=True)
class EvaluatedImages:
    """N images with their labels and names.

    Attributes:
        dataset: name of the data set.
        digest: of the packed data set.
        own: whether these are the images of the run's own split of that name.
        labels: in the run's class order.
        classes: the K class names, in the run's order.
        batch_size: images in one forward pass.
    """

    dataset: str
    digest: str
    own: bool
    rows: SplitRows
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    batch_size: int

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self) -> Iterator[tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]]:
        """Yield batches of unaugmented images in [0, 1], with their positions in the split."""
        for index in torch.split(torch.arange(len(self)), self.batch_size):
            yield as_floats(self.rows.stored.images[self.rows.rows[index]]), index


def own_images(run: FinishedRun, split: SplitName) -> EvaluatedImages:
    """Return a split of the run's own data set.

    Raises:
        UserError: as `FinishedRun.split`.
    """
    rows, data = run.split(split), run.data
    labels, name = rows.stored.labels[rows.rows], run.config["dataset"]["name"]
    return EvaluatedImages(name, data.digest, True, rows, labels, data.classes, data.eval_batch_size)


def other_images(run: FinishedRun, dataset: Mapping[str, Any], split: SplitName) -> EvaluatedImages:
    """Return a split of another data set with the run's class names, in any order.

    Args:
        run: the evaluated run.
        dataset: the other data set's node, as in ``conf/dataset``.
        split: of its packed form.

    Raises:
        UserError: if its classes or the size of its images differ, or the split does not exist.
    """
    own, name = run.config["dataset"], dataset["name"]
    if dataset["image_size"] != own["image_size"]:
        raise UserError(
            f"The data set {name!r} has another image size than the run "
            f"(got {dataset['image_size']}, expected {own['image_size']}).",
            fix=f"pass dataset.image_size={own['image_size']}",
        )
    refuse_other_count(run, dataset["num_classes"], name)  # before anything is downloaded
    packed: PackedDataset = pack(build_object(dataset["source"]), run.paths["data"] / "packed")
    same = packed.digest == run.record.dataset.digest
    if same and split == "val":  # the run's own images from another place, whose split is known
        return own_images(run, split)
    if split not in packed.splits:
        there = [*packed.splits]
        whose = " Only the data set of the run has a validation split." if split == "val" else ""
        raise UserError(
            f"The data set {name!r} has no split {split!r} (expected one of {there}).{whose}",
            fix=f"pass split={there[-1]}" + (", or remove dataset=" if split == "val" else ""),
        )
    known = run.record.dataset.classes
    if sorted(known) != sorted(packed.classes):
        missing, foreign = set(known) - set(packed.classes), set(packed.classes) - set(known)
        raise UserError(
            f"The data set {name!r} has other class names than the run (missing: {first_few(missing)}; "
            f"unexpected: {first_few(foreign)}).",
            fix="pass dataset=image_folder dataset.source.folder=FOLDER with folders named like the classes",
        )
    refuse_other_count(run, len(packed.classes), name)
    position = torch.tensor([known.index(label) for label in packed.classes])
    stored = packed.splits[split]
    rows = SplitRows(split, stored, torch.arange(len(stored)))
    # the run may have trained on a part of the packed training images
    is_own = same and split != "train"
    batch = int(run.config["data"].get("eval_batch_size", 500))
    return EvaluatedImages(name, packed.digest, is_own, rows, position[stored.labels], known, batch)


def refuse_other_count(run: FinishedRun, count: int, name: str) -> None:
    """Raise a UserError if the number of classes differs; their names may be unknown yet."""
    if count != (expected := run.config["dataset"]["num_classes"]):
        raise UserError(
            f"The data set {name!r} and the run differ in num_classes (got {count}, expected {expected}).",
            fix="pass the name of a data set with the same classes: dataset=NAME",
        )


def first_few(names: set[str]) -> str:
    """Return the first few names as text."""
    first = sorted(names)[:5]
    return ", ".join(map(repr, first)) + (", ..." if len(names) > len(first) else "") if names else "none"
