"""Compare cached steps of a student whose teacher takes 32 or 224 pixels, in turn and in one process.

    OMP_NUM_THREADS=1 python docs/measurements/input_sizes.py

Prints milliseconds per step, and the ratio of both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir

from amtml_pl.benchmark import benchmark_of
from amtml_pl.config.paths import config_directory
from amtml_pl.system.console import quieten
from amtml_pl.training.benchmark.benchmark_record import Statistic
from amtml_pl.training.benchmark.short_fit import ShortFit, silenced_console
from amtml_pl.training.execution import EAGER

REPETITIONS, STEPS, IMAGES = 15, 10, 512
WORDS = (
    "experiment=digits", "method=amtml_adapter", "student=resnet8_thin", "teacher=[resnet8]", "trainer=cpu",
    "hint_pool=8", "data.batch_size=64",
)  # fmt: skip


def main() -> None:
    """Measure, and print a Markdown table."""
    quieten()
    milliseconds: dict[int, list[float]] = {32: [], 224: []}
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_directory()), version_base="1.3"),
        silenced_console(),
    ):
        fits = {}
        for size in milliseconds:
            (own := Path(folder) / str(size)).mkdir()
            words = [*WORDS, f"teacher.resnet8.input_size={size}"]
            words += [f"paths.{name}={own}/none" for name in ("data", "teachers")]
            made = benchmark_of(
                compose("train", overrides=words), own, repetitions=REPETITIONS, steps=STEPS, images=IMAGES
            )
            fits[size] = ShortFit(made.variants["cached"], own / "fit", EAGER)
        for repetition in range(REPETITIONS):
            for size in fits if repetition % 2 == 0 else reversed(fits):
                milliseconds[size].append(1e3 * statistics.median(fits[size].steps().steps))
    ratios = [large / small for small, large in zip(*milliseconds.values(), strict=True)]
    rows = {f"teacher of {size} pixels, ms": values for size, values in milliseconds.items()}
    for name, values in {**rows, "224 ÷ 32": ratios}.items():
        found = Statistic.of(values)
        sys.stdout.write(f"| {name} | {found.median:.3g} ({found.spread:.2g}) |\n")


if __name__ == "__main__":
    main()
