"""Compare an exported student with its checkpoint, on validation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from amtml_pl.data.augment import as_floats
from amtml_pl.errors import UserError
from amtml_pl.results.export.record import Parity
from amtml_pl.results.export.student import Forward
from amtml_pl.results.run import FinishedRun

MOST_DIFFERENCE = 1e-4  # of a logit in float32
MOST_IMAGES = 2000
RANDOM_IMAGES = 256
BATCH = 100


@dataclass(frozen=True)
class ParityImages:
    """The images on which a checkpoint and its exported form are compared.

    Attributes:
        stored: images, of which each of ``rows`` is used once.
        missing: why the images are random; empty for images of the run's validation split.
    """

    stored: UInt8[Tensor, "S 3 H W"]
    rows: Int64[Tensor, " N"]
    missing: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return f"{len(self):,} {'random' if self.missing else 'validation'} images"

    def batches(self) -> Iterator[Float[Tensor, "B 3 H W"]]:
        """Yield the images in [0, 1]; a graph can be wrong for some batch sizes."""
        for rows in (self.rows[:1], self.rows[1:8], *torch.split(self.rows[8:], BATCH)):
            if len(rows):
                yield as_floats(self.stored[rows])


def parity_images(run: FinishedRun) -> ParityImages:
    """Return at most 2,000 validation images, evenly spread; random ones if none are found.

    Nothing is downloaded.
    """
    try:
        split = run.split("val")
    except UserError as error:
        size = run.config["dataset"]["image_size"]
        shape, seeded = (RANDOM_IMAGES, 3, size, size), torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, shape, generator=seeded, dtype=torch.uint8)
        return ParityImages(pixels, torch.arange(RANDOM_IMAGES), error.what)
    number = min(MOST_IMAGES, len(split))
    chosen = torch.linspace(0, len(split) - 1, number, dtype=torch.float64).long()
    return ParityImages(split.stored.images, split.rows[chosen])


def measure_parity(checkpoint: Forward, exported: Forward, images: ParityImages) -> Parity:
    """Compare the logits of both forms of a student on the same images."""
    before, after = [], []
    with torch.inference_mode():
        for batch in images.batches():
            before.append(checkpoint(batch))
            found = exported(batch)
            fits = found.shape == before[-1].shape
            after.append(found.float() if fits else torch.full_like(before[-1], torch.nan))
    first, second = torch.cat(before), torch.cat(after)
    return Parity(
        images=len(images),
        real=not images.missing,
        max_abs_logit_difference=float((first - second).abs().max()),
        same_class=float((first.argmax(1) == second.argmax(1)).double().mean()),
    )
