"""Compare an exported student with its checkpoint, on validation images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.results.evaluation.images import EvaluatedImages, own_images
from amtml_pl.results.export.formats.student import Forward
from amtml_pl.results.export.record import BeforeAndAfter, Parity
from amtml_pl.results.run import FinishedRun
from amtml_pl.types import Split, SplitName

MOST_DIFFERENCE = 1e-4  # of a logit in float32
MOST_IMAGES = 2000
RANDOM_IMAGES = 256
BATCH = 100
OTHER_BATCHES = (1, 7)  # a graph that is right for one size of batch may be wrong for another


@dataclass(frozen=True)
class ParityImages:
    """The images on which a checkpoint and its exported form are compared.

    Attributes:
        lacking: why the images are random; empty for images of the run's validation split.
    """

    images: EvaluatedImages
    lacking: str = ""

    def __str__(self) -> str:
        return f"{len(self.images):,} {'random' if self.lacking else 'validation'} images"


def refuse_ruined(parity: Parity, shown: ParityImages, most_drop: float) -> None:
    """Raise if the 8-bit student is much worse than its checkpoint.

    Args:
        parity: the comparison, on real images.
        shown: these images.
        most_drop: the accuracy, in [0, 1], that it may lose.

    Raises:
        UserError: if its logits are not finite, or it loses more accuracy than it may.
    """
    accuracy = parity.val_acc
    if accuracy is None or not math.isfinite(parity.max_abs_logit_difference):
        raise UserError(
            f"In 8 bits the student gives logits that are no finite numbers, on {shown}. "
            "Nothing was published.",
            fix="int8=false",
        )
    lost = round(accuracy.before - accuracy.after, 9)  # 1.0 - 0.98 is more than 0.02 in floating point
    if lost > most_drop:
        raise UserError(
            f"In 8 bits the accuracy on {shown} falls from {accuracy.before:.4f} to {accuracy.after:.4f}, "
            f"expected to fall by at most int8_drop={most_drop:g}. Nothing was published.",
            fix=f"int8=false; or int8_drop={math.ceil(lost * 100) / 100:g}, if it may lose as much",
        )


def parity_images(run: FinishedRun) -> ParityImages:
    """Return at most 2,000 validation images, evenly spread; random ones if none are found.

    Nothing is downloaded.
    """
    try:
        return ParityImages(local_images(run, "val", MOST_IMAGES))
    except UserError as error:
        size, K = run.config["dataset"]["image_size"], run.config["dataset"]["num_classes"]
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


def compare(checkpoint: Forward, exported: Forward, shown: ParityImages) -> Parity:
    """Compare both forms of a student on the same images, in batches of several sizes."""
    before, after = [], []
    with torch.inference_mode():
        for images in batches(shown.images):
            before.append(checkpoint(images))
            after.append(logits_like(before[-1], exported(images)))
    first, second, truth = torch.cat(before), torch.cat(after), shown.images.labels
    accuracy = BeforeAndAfter(before=share(first.argmax(1) == truth), after=share(second.argmax(1) == truth))
    return Parity(
        images=len(shown.images),
        real=not shown.lacking,
        max_abs_logit_difference=float((first - second).abs().max()),
        same_class=share(first.argmax(1) == second.argmax(1)),
        val_acc=None if shown.lacking else accuracy,
    )


def batches(images: EvaluatedImages) -> Iterator[Float[Tensor, "B 3 H W"]]:
    """Yield every image once; first a batch of 1, then one of 7."""
    start = 0
    for size in (*OTHER_BATCHES, *[BATCH] * len(images)):
        if start >= len(images):
            return
        yield images.at(torch.arange(start, min(start + size, len(images))))
        start += size


def logits_like(expected: Float[Tensor, "B K"], found: Tensor) -> Float[Tensor, "B K"]:
    """Return logits as float32 if the shape is as expected, else NaN."""
    return found.float() if found.shape == expected.shape else torch.full_like(expected, torch.nan)


def share(hits: Bool[Tensor, " N"]) -> float:
    """Return the share of true entries."""
    return float(hits.double().mean())
