"""Time the fit of a linear head: ``OMP_NUM_THREADS=1 python docs/measurements/linear_head.py``."""

from __future__ import annotations

import argparse
import time

import torch

from amtml_pl.system.console import console
from amtml_pl.teachers.linear_head import Labelled, fit_head


def features(images: int, dimensions: int, classes: int, seed: int) -> Labelled:
    """Return rectified noise around one centre per class, as a backbone's pooled maps."""
    centres = 0.18 * torch.randn(classes, dimensions, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    noise = torch.randn(images, dimensions, generator=generator)
    return Labelled((centres[labels] + noise).relu(), labels)


def main() -> None:
    """Print the seconds of a fit for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=384)
    asked = parser.parse_args()
    for classes in (10, 100, 1000):
        train = features(asked.images, asked.dimensions, classes, seed=1)
        val = features(1000, asked.dimensions, classes, seed=2)
        start = time.perf_counter()
        _, accuracy, C = fit_head(train, val, classes)
        seconds = time.perf_counter() - start
        console.print(f"{classes} classes: {seconds:.1f} s (C={C:g}, accuracy {accuracy:.3f})")


if __name__ == "__main__":
    main()
