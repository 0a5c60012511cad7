"""Measure steps with live, cached and no teachers: ``python -m amtml_pl.benchmark``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from amtml_pl.config.build import Config, plain_values
from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.paths import config_directory
from amtml_pl.config.value_origin import content_of
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.system.records import write_record

if TYPE_CHECKING:
    from amtml_pl.training.benchmark.benchmark_record import BenchmarkRecord
    from amtml_pl.training.benchmark.measurement import Benchmark

ROWS = {
    "ce_step_ms": "cross-entropy step, ms",
    "avg_step_ms": "plain averaging, cached step, ms",
    "cached_step_ms": "this experiment, cached step, ms",
    "live_step_ms": "this experiment, live step, ms",
    "bare_eager_step_ms": "bare loop from labels, eager step, ms",
    "bare_channels_last_step_ms": "bare loop from labels, channels-last step, ms",
    "bare_compiled_step_ms": "bare loop from labels, channels-last and compiled step, ms",
    "ratio_to_limit": "fastest bare step ÷ cached step",
    "ratio_cached_to_ce": "cached step ÷ cross-entropy step",
    "ratio_live_to_cached": "live step ÷ cached step",
    "input_share": "input path, share of a cached step",
    "compile_seconds": "compilation of the cached step, before the timed steps, s",
    "build_images_per_second": "cache build, images/s through all teachers",
    "ce_peak_mb": "peak private memory, cross-entropy, MB",
    "peak_extra_mb": "extra peak private memory of a cached run, MB",
    "teacher_parameters_resident": "teacher parameters in memory in a cached run",
}


@command("benchmark")
def main(job: CommandJob) -> None:
    """Measure, print a table, and write ``benchmark.json`` into the run's folder."""
    with job.reporting(own_folder=True):
        options = job.take(COMMANDS["benchmark"])["benchmark"]
        check_values(job.config)
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.training.benchmark.benchmark_record import BenchmarkRecord

        check_constructors(job.config)
        with tempfile.TemporaryDirectory(prefix="amtml-benchmark-") as place:
            measured = benchmark_of(job.config, Path(place), **options)
            figures = measured.figures()
            record = BenchmarkRecord(
                experiment=job.experiment,
                command=job.typed(),
                figures=figures,
                break_even=measured.break_even(figures),
                conditions=measured.conditions(),
                git=git_state(),
                versions=versions(),
            )
        file = job.folder / "benchmark.json"
        write_record(file, record)
        print_benchmark(record)
        console.print(f"Written to {file}", markup=False)


def benchmark_of(config: Config, folder: Path, *, repetitions: int, steps: int, images: int) -> Benchmark:
    """Return the measurements of an experiment; its data set and trained teachers may be missing.

    Args:
        config: the checked configuration.
        folder: empty; takes teachers, caches and runs.
        repetitions: of each measurement.
        steps: timed steps in each fit; one untimed step comes before them.
        images: the least number to train on and to build the cache for.
    """
    from amtml_pl.training.benchmark.measurement import Benchmark
    from amtml_pl.training.benchmark.short_fit import (
        execution_of_whole_run,
        images_are_packed,
        weights_for_teachers,
    )
    from amtml_pl.training.settings import settings_of

    if not config.teacher:
        raise UserError("A benchmark needs teachers (got teacher=[]).", fix="add experiment=cifar100_amtml")
    original = settings_of(config)
    short = Config(plain_values(config))
    rows = max(images, (steps + 2) * config.data.batch_size)
    short.data.train_size = max(rows, short.dataset.num_classes)
    short.data.val_size = max(short.dataset.num_classes, 64)
    short.logger, short.callbacks = {}, {}
    short.prepare, short.force, short.teacher_source = True, False, "cached"
    short.paths.cache, short.paths.outputs = str(folder / "cache"), str(folder / "outputs")
    if not images_are_packed(original):
        short.paths.data = str(folder / "data")
        short.dataset.source = {
            "_target_": "amtml_pl.data.datasets.synthetic.Synthetic",
            "num_classes": config.dataset.num_classes,
            "image_size": config.dataset.image_size,
            "train_images": short.data.train_size + short.data.val_size,
        }
        for teacher in short.teacher.values():
            teacher.min_accuracy = None
    short.trainer.max_epochs, short.trainer.limit_train_batches = 1, steps + 2
    files = weights_for_teachers(original, folder)
    for teacher in original.selected:
        if teacher.name in files:  # no longer its recipe's, which knows its classes
            node = short.teacher[teacher.name]
            node.weights.update(path=str(files[teacher.name]), key=None, strip_prefixes=[], rename=None)
            node.class_map = teacher.class_map
    settings = {name: settings_of(variant) for name, variant in variants(short).items()}
    return Benchmark(original, settings, folder, repetitions, steps, execution_of_whole_run(original))


def variants(config: Config) -> Mapping[str, Config]:
    """Return four variants: labels only, plain averaging, cached as configured, and live."""
    live, avg, ce = (deepcopy(config) for _ in range(3))
    live.teacher_source, ce.teacher = "live", {}
    for own, terms in ((ce, ["ce"]), (avg, ["ce", "kd"])):
        files = [content_of(config_directory() / "loss" / f"{term}.yaml") for term in terms]
        own.loss = {name: node for file in files for name, node in file["loss"].items()}
        own.coef = {name: value for file in (*files, own) for name, value in file["coef"].items()}
        own.weighting = content_of(config_directory() / "weighting" / "uniform.yaml")
    return {"ce": ce, "avg": avg, "cached": config, "live": live}


def print_benchmark(record: BenchmarkRecord) -> None:
    """Print the figures, their conditions, and when the cache starts to pay."""
    table = Table(title=escape(record.experiment or "benchmark"), title_justify="left")
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("interquartile range", justify="right")
    for name, title in ROWS.items():
        figure = record.figures[name]
        median = "not measured here" if figure.median is None else f"{figure.median:,.4g}"
        table.add_row(title, median, "" if figure.spread is None else f"{figure.spread:.2g}")
    console.print(table)
    for part in (record.conditions, record.break_even):
        for name, value in part:
            shown = f"{value:.3g}" if isinstance(value, float) else value
            console.print(f"  {name.replace('_', ' ')}: {shown}", markup=False)


if __name__ == "__main__":
    main()
