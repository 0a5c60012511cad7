"""Compare a cached step with the loops of two published codes, in turn and in one process.

    python docs/measurements/other_loops.py [--classes 10] [--repetitions 5] [--steps 5] [OVERRIDE ...]

Overrides are those of `amtml_pl.train`, for our run alone. speed.md describes the loops.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from published_loops import BATCH, CaMkd, Notebook

from amtml_pl.benchmark import benchmark_of
from amtml_pl.config.paths import config_directory
from amtml_pl.system.console import quieten
from amtml_pl.training.benchmark.benchmark_record import Statistic
from amtml_pl.training.benchmark.short_fit import ShortFit, silenced_console


def measure(
    config: DictConfig, folder: Path, repetitions: int, steps: int
) -> tuple[str, dict[str, list[float]]]:
    """Return the execution of our run, and the seconds per step of every loop, measured in turn."""
    ours = benchmark_of(config, folder, repetitions=repetitions, steps=steps, images=BATCH)
    settings = ours.variants["cached"]
    fit = ShortFit(settings, folder / "ours", ours.execution)
    arguments = settings.dataset.num_classes, steps, settings.trainer.device
    theirs = {"CA-MKD": CaMkd(*arguments), "AMTML notebook": Notebook(*arguments)}
    seconds: dict[str, list[float]] = {name: [] for name in ("ours, cached", *theirs)}
    for repetition in range(repetitions):
        for name in seconds if repetition % 2 == 0 else reversed(seconds):
            step = theirs[name].seconds(steps) if name in theirs else statistics.median(fit.steps().steps)
            seconds[name].append(step)
    return str(ours.execution), seconds


def table(seconds: dict[str, list[float]]) -> str:
    """Return medians with interquartile ranges as Markdown."""
    lines = ["| loop | step, ms | images/s | ours ÷ this, images/s |", "|---|---|---|---|"]
    ours = next(iter(seconds.values()))
    for name, own in seconds.items():
        cells = (
            [1e3 * value for value in own],
            [BATCH / value for value in own],
            [theirs / value for theirs, value in zip(own, ours, strict=True)],
        )
        found = [Statistic.of(values) for values in cells]
        written = [f"{each.median:.3g} ({each.spread:.2g})" for each in found]
        lines.append(f"| {' | '.join([name, *written])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description="Compare a cached step with the loops of two published codes."
    )
    for name, value in {"classes": 10, "repetitions": 5, "steps": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    quieten()
    words = [
        f"experiment=cifar{given.classes}",
        "method=amtml_adapter",
        "teacher=[resnet32,resnet56,resnet110]",
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_directory()), version_base="1.3"),
        silenced_console(),
    ):
        nothing = [f"paths.{name}={folder}/none" for name in ("data", "teachers")]
        config = compose("train", overrides=[*words, *nothing, *given.overrides])
        execution, seconds = measure(config, Path(folder), given.repetitions, given.steps)
    sys.stdout.write(
        f"{table(seconds)}\n\n{vars(given)}, {torch.get_num_threads()} threads, ours: {execution}\n"
    )


if __name__ == "__main__":
    main()
