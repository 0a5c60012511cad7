"""Compare the executions of one experiment's step, in turn and in one process.

    OMP_NUM_THREADS=1 python docs/measurements/executions.py experiment=cifar10_jpeg_small method=avg

Prints milliseconds per step of ``execution=eager``, of ``auto`` without compilation and of a compiled step.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from amtml_pl.benchmark import benchmark_of
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.record import Execution
from amtml_pl.system.console import quieten
from amtml_pl.training.benchmark.benchmark_record import Statistic
from amtml_pl.training.benchmark.short_fit import ShortFit, silenced_console
from amtml_pl.training.execution import EAGER

REPETITIONS, STEPS, IMAGES = 7, 5, 1024
EXECUTIONS = {
    "eager": EAGER,
    "channels last, fused": Execution(channels_last=True, compile=False, fused=True),
    "channels last, fused, compiled": Execution(channels_last=True, compile=True, fused=True),
}


def main() -> None:
    """Measure, and print a Markdown table."""
    quieten()
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_directory()), version_base="1.3"),
        silenced_console(),
    ):
        nothing = [f"paths.{name}={folder}/none" for name in ("data", "teachers")]
        config = compose("train", overrides=[*sys.argv[1:], *nothing, "trainer=cpu"])
        made = benchmark_of(config, Path(folder), repetitions=REPETITIONS, steps=STEPS, images=IMAGES)
        settings = made.variants["cached"]
        fits = {
            name: ShortFit(settings, Path(folder) / f"fit-{number}", execution)
            for number, (name, execution) in enumerate(EXECUTIONS.items())
        }
        milliseconds: dict[str, list[float]] = {name: [] for name in fits}
        for repetition in range(REPETITIONS):
            for name in fits if repetition % 2 == 0 else reversed(fits):
                milliseconds[name].append(1e3 * statistics.median(fits[name].steps().steps))
    lines = ["| execution | step, ms | eager ÷ this |", "|---|---|---|"]
    for name, own in milliseconds.items():
        gains = [eager / value for eager, value in zip(milliseconds["eager"], own, strict=True)]
        written = [f"{each.median:.3g} ({each.spread:.2g})" for each in map(Statistic.of, (own, gains))]
        lines.append(f"| {' | '.join([name, *written])} |")
    sys.stdout.write("\n".join([*lines, "", f"{sys.argv[1:]}, {torch.get_num_threads()} threads", ""]))


if __name__ == "__main__":
    main()
