"""Whether an exported student gives what its checkpoint gives, on the images that the run was selected on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.data.augment import as_floats
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.results.evaluation.images import EvaluatedImages, own_images
from amtml_pl.results.export.record import BeforeAndAfter, ParityRecord
from amtml_pl.results.run import FinishedRun
from amtml_pl.types import Split, SplitName

MOST_DIFFERENCE = 1e-4  # of a logit in float32
MOST_IMAGES = 2000
RANDOM_IMAGES = 256
BATCH = 100
OTHER_BATCHES = (1, 7)  # a graph that is right for one size of batch may be wrong for another


@dataclass(frozen=True)
class ParityImages:
    """What a checkpoint and its exported form are both shown.

    Attributes:
        images: with labels where they are real.
        lacking: why they are random ones; empty where they are of the run's validation split.
    """

    images: EvaluatedImages
    lacking: str = ""

    def __str__(self) -> str:
        count = f"{len(self.images):,}"
        return f"{count} random images" if self.lacking else f"{count} validation images"


@dataclass(frozen=True)
class Parity:
    """How two forms of a student compare.

    Attributes:
        difference: the largest |Δlogit|; not a number where a logit is none.
        same_class: share of the images that both give the same class.
        before: accuracy of the checkpoint, in [0, 1].
        after: of the exported student, likewise.
    """

    difference: float
    same_class: float
    before: float
    after: float

    @property
    def holds(self) -> bool:
        """Whether the exported student is the checkpoint's, to rounding."""
        return self.difference <= MOST_DIFFERENCE

    def record(self, shown: ParityImages) -> ParityRecord:
        """Return what a run's ``export.json`` holds of it."""
        accuracy = None if shown.lacking else BeforeAndAfter(before=self.before, after=self.after)
        return ParityRecord(
            images=len(shown.images),
            real=not shown.lacking,
            max_abs_logit_difference=self.difference,
            same_class=self.same_class,
            val_acc=accuracy,
        )


def refuse_ruined(parity: Parity, shown: ParityImages, most_drop: float) -> None:
    """Refuses a student in 8 bits that is too much worse than its checkpoint.

    Args:
        parity: how both compare.
        shown: the images, real ones, that they were compared on.
        most_drop: the accuracy, in [0, 1], that it may lose.

    Raises:
        UserError: if it gives what are no numbers, or loses more accuracy than it may.
    """
    if not math.isfinite(parity.difference):
        raise UserError(
            f"In 8 bits the student gives logits that are no finite numbers, on {shown}. "
            "Nothing was published.",
            fix="int8=false",
        )
    lost = round(parity.before - parity.after, 9)  # 1.0 - 0.98 is more than 0.02 in floating point
    if lost > most_drop:
        raise UserError(
            f"In 8 bits the accuracy on {shown} falls from {parity.before:.4f} to {parity.after:.4f}, "
            f"expected to fall by at most int8_drop={most_drop:g}. Nothing was published.",
            fix=f"int8=false; or int8_drop={math.ceil(lost * 100) / 100:g}, if it may lose as much",
        )


def parity_images(run: FinishedRun) -> ParityImages:
    """Validation images of a run, at most 2,000, evenly spread; random ones where its data are not here.

    Nothing is downloaded.
    """
    try:
        return ParityImages(local_images(run, "val", MOST_IMAGES))
    except UserError as error:
        size, K = int(run.config.dataset.image_size), int(run.config.dataset.num_classes)
        seeded = torch.Generator().manual_seed(0)
        shape = (RANDOM_IMAGES, 3, size, size)
        pixels = torch.randint(0, 256, shape, generator=seeded, dtype=torch.uint8)
        labels = torch.zeros(RANDOM_IMAGES, dtype=torch.int64)
        stored = Split(pixels, labels, tuple(map(str, range(K))))
        rows = SplitRows("val", stored, torch.arange(RANDOM_IMAGES))
        images = EvaluatedImages("random", "", False, rows, labels, stored.classes, BATCH)
        return ParityImages(images, error.what)


def local_images(run: FinishedRun, split: SplitName, most: int) -> EvaluatedImages:
    """Return images of a split of a run's own data set, evenly spread over it.

    Raises:
        UserError: if they are not packed on this machine.
    """
    images = own_images(run, split)
    chosen = torch.linspace(0, len(images) - 1, min(most, len(images)), dtype=torch.float64).long()
    rows = replace(images.rows, rows=images.rows.rows[chosen])
    return replace(images, rows=rows, labels=images.labels[chosen], batch_size=BATCH)


def compare(
    checkpoint: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], shown: ParityImages
) -> Parity:
    """Shows both forms of a student the same images, in batches of several sizes.

    Args:
        checkpoint: images to logits.
        exported: likewise.
        shown: the images.
    """
    before, after, labels = [], [], []
    with torch.inference_mode():
        for images, label in batches(shown.images):
            before.append(checkpoint(images))
            after.append(logits_like(before[-1], exported(images)))
            labels.append(label)
    first, second, truth = torch.cat(before), torch.cat(after), torch.cat(labels)
    return Parity(
        difference=float((first - second).abs().max()),
        same_class=share(first.argmax(1) == second.argmax(1)),
        before=share(first.argmax(1) == truth),
        after=share(second.argmax(1) == truth),
    )


def batches(images: EvaluatedImages) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, with its label; first a batch of 1, then one of 7."""
    start = 0
    for size in (*OTHER_BATCHES, *[BATCH] * len(images)):
        if start >= len(images):
            return
        index = torch.arange(start, min(start + size, len(images)))
        yield as_floats(images.rows.stored.images[images.rows.rows[index]]), images.labels[index]
        start += size


def logits_like(expected: Float[Tensor, "B K"], found: Tensor) -> Float[Tensor, "B K"]:
    """Logits of the shape that is expected; where they have another one, none that could be equal."""
    return found.float() if found.shape == expected.shape else torch.full_like(expected, torch.nan)


def share(hits: Tensor) -> float:
    """The share that is true."""
    return float(hits.double().mean())
