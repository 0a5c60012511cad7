"""``python -m amtml_pl.benchmark experiment=...``: what a step costs with live, cached and no teachers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from amtml_pl.config.checks import check_command, check_constructors, check_values
from amtml_pl.config.command import Job, command
from amtml_pl.config.command_keys import BENCHMARK
from amtml_pl.system.console import console
from amtml_pl.system.records import write_record

if TYPE_CHECKING:
    from amtml_pl.training.benchmark.record import BenchmarkRecord

ROWS = {
    "ce_step_ms": "cross-entropy step, ms",
    "avg_step_ms": "plain averaging, cached, step, ms",
    "cached_step_ms": "this experiment, cached, step, ms",
    "live_step_ms": "this experiment, live, step, ms",
    "ratio_cached_to_ce": "cached step ÷ cross-entropy step",
    "ratio_live_to_cached": "live step ÷ cached step",
    "input_share": "input path, share of a cached step",
    "build_images_per_second": "cache build, images/s through all teachers",
    "build_rate_ratio": "cache build rate ÷ bare forward loop",
    "ce_peak_mb": "peak private memory, cross-entropy, MB",
    "peak_extra_mb": "peak private memory, cached - cross-entropy, MB",
    "teacher_parameters_resident": "teacher parameters in memory in a cached run",
}


@command("benchmark")
def main(job: Job) -> None:
    """Measure, print a table, and write ``benchmark.json`` into the run's folder.

    Exit status: 0 done, 2 a mistake of the user's.
    """
    with job.reporting(own_folder=True):
        asked = job.take("benchmark").get("benchmark", {})
        check_command(asked, BENCHMARK)
        check_values(job.config)
        # only here: torch takes seconds, in which a mistake is reported, and Ctrl-C ends, like everywhere
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.training.benchmark.measurement import Benchmark
        from amtml_pl.training.benchmark.record import BenchmarkRecord

        check_constructors(job.config)
        with tempfile.TemporaryDirectory(prefix="amtml-benchmark-") as place:
            measured = Benchmark(job.config, Path(place), **asked)
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
        show(record)
        console.print(f"Written to {file}", markup=False)


def show(record: BenchmarkRecord) -> None:
    """Print the figures, what they were measured on, and when the cache has paid."""
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
