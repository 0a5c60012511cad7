"""Measure how much the cache's data types change logits, gradients and hints.

    OMP_NUM_THREADS=1 python docs/measurements/storage.py

Prints two Markdown tables. The numbers are random: logits of deviation 3, the label's 8 higher, and hints
that a ReLU has cut.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from amtml_pl.teachers.cache.storage import decode, encode, encode_logits, probability_error

ROWS, T = 4096, 4.0


def main() -> None:
    """Measure, and print the tables."""
    generator = torch.Generator().manual_seed(0)
    head = (
        "| float16, K | offset | probabilities, T = 1 | T = 4 | gradient, 3 logits away | 0.3 logits away |"
    )
    sys.stdout.write(f"{head}\n|---|---|---|---|---|---|\n")
    for K in (10, 100):
        logits = 3 * torch.randn(ROWS, K, generator=generator)
        logits[torch.arange(ROWS), torch.randint(K, (ROWS,), generator=generator)] += 8
        away = torch.randn(ROWS, K, generator=generator)
        for offset in (0, 50, 500):
            given = logits + offset
            stored = encode_logits(given, "float16")["values"].float()
            errors = [probability_error(given / t, stored / t) for t in (1, T)]
            errors += [gradient_error(given, stored, given + d * away) for d in (3, 0.3)]
            sys.stdout.write(f"| {K} | {offset} | {' | '.join(f'{100 * e:.2g} %' for e in errors)} |\n")
    sys.stdout.write("\n| hints | float16 | int8 |\n|---|---|---|\n")
    hints = F.relu(torch.randn(ROWS, 64, 8, 8, generator=generator))
    for name in ("as drawn", "one value of 300"):
        errors = [relative(decode(made["values"], made.get("scale")).float(), hints) for made in both(hints)]
        sys.stdout.write(f"| {name} | {' | '.join(f'{100 * e:.2g} %' for e in errors)} |\n")
        hints[0, 0, 0, 0] = 300


def gradient_error(given: Tensor, stored: Tensor, student: Tensor) -> float:
    """Return the relative error of the distillation gradient at temperature 4."""
    p, exact, read = (F.softmax(each.double() / T, dim=1) for each in (student, given, stored))
    return relative(p - read, p - exact)


def both(hints: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return hints as stored in float16 and in int8."""
    return encode(hints, "float16"), encode(hints, "int8")


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the root mean square of the difference, relative to that of the expected numbers.

    A number above 100 is left out of both.
    """
    usual = expected.abs() < 100
    return ((found - expected)[usual].norm() / expected[usual].norm()).item()


if __name__ == "__main__":
    main()
