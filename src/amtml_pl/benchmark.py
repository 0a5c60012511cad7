"""``python -m amtml_pl.benchmark experiment=...``: what a step costs with live, cached and no teachers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.markup import escape
from rich.table import Table

from amtml_pl.config.checks import check_command, check_constructors, check_values
from amtml_pl.config.command import progress, reporting, start, typed
from amtml_pl.config.command_keys import BENCHMARK
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import register_resolvers
from amtml_pl.system.console import console
from amtml_pl.system.records import write_record

if TYPE_CHECKING:
    from amtml_pl.training.benchmark.measurement import Benchmark
    from amtml_pl.training.benchmark.record import BenchmarkRecord

register_resolvers()

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


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="benchmark")
def run(config: DictConfig) -> None:
    """Measures, prints a table, writes ``benchmark.json`` into the run's folder."""
    progress.begun = True
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    with reporting("amtml_pl.benchmark", debug=config.get("debug", False), folder=folder, resumes=False):
        with open_dict(config):
            asked = config.pop("benchmark")
        check_command(asked, BENCHMARK)
        check_values(config)
        # only here: torch takes seconds, in which a mistake is reported, and Ctrl-C ends, like everywhere
        from amtml_pl.runs.provenance import git_state, versions
        from amtml_pl.training.benchmark.record import BenchmarkRecord

        check_constructors(config)
        with tempfile.TemporaryDirectory(prefix="amtml-benchmark-") as place:
            measured = benchmark_of(config, Path(place), **asked)
            figures = measured.figures()
            record = BenchmarkRecord(
                experiment=hydra_config.runtime.choices.get("experiment"),
                command=typed("amtml_pl.benchmark"),
                figures=figures,
                break_even=measured.break_even(figures),
                conditions=measured.conditions(),
                git=git_state(),
                versions=versions(),
            )
        file = folder / "benchmark.json"
        write_record(file, record)
        show(record)
        console.print(f"Written to {file}", markup=False)


def benchmark_of(config: DictConfig, folder: Path, *, repetitions: int, steps: int, images: int) -> Benchmark:
    """Return the measurements of an experiment, which needs neither its data set nor trained teachers.

    Args:
        config: the checked configuration.
        folder: an empty one for teachers, caches and runs; to be deleted afterwards.
        repetitions: of every measurement.
        steps: timed in each fit, after one that is not.
        images: at least, to train on and to build the cache for.

    Raises:
        UserError: if the experiment has no teachers.
    """
    from amtml_pl.training.benchmark.measurement import Benchmark
    from amtml_pl.training.benchmark.short_fit import images_are_packed, weights_for_teachers
    from amtml_pl.training.settings import settings_of

    if not config.teacher:
        raise UserError("There is no teacher to compare with.", fix="experiment=cifar100_amtml")
    original = settings_of(config)
    short = on_few_images(config, folder, max(images, (steps + 2) * config.data.batch_size))
    if not images_are_packed(original):
        short.paths.data = str(folder / "data")
        short.dataset.source = {
            "_target_": "amtml_pl.data.datasets.synthetic.Synthetic",
            "num_classes": config.dataset.num_classes,
            "image_size": config.dataset.image_size,
            "train_images": short.data.train_size + short.data.val_size,
        }
    short.trainer.max_epochs, short.trainer.limit_train_batches = 1, steps + 2
    for name, file in weights_for_teachers(original, folder).items():
        short.teacher[name].weights = {"path": str(file), "key": None, "strip_prefixes": [], "rename": None}
    settings = {name: settings_of(variant) for name, variant in variants(short).items()}
    return Benchmark(original, settings, folder, repetitions=repetitions, steps=steps)


def on_few_images(config: DictConfig, folder: Path, rows: int) -> DictConfig:
    """The same experiment, cached, in folders of its own; as plain values, which another process can take."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    own: DictConfig = OmegaConf.create({str(key): value for key, value in plain.items() if key != "hydra"})
    own.data.train_size = max(rows, own.dataset.num_classes)
    own.data.val_size = max(own.dataset.num_classes, 64)
    own.logger, own.prepare, own.force, own.teacher_source = {}, True, False, "cached"
    own.paths.cache, own.paths.outputs = str(folder / "cache"), str(folder / "outputs")
    return own


def variants(config: DictConfig) -> Mapping[str, DictConfig]:
    """The experiment cached as it is, with live teachers, with plain averaging, and from labels only."""
    live, avg, ce = (deepcopy(config) for _ in range(3))
    live.teacher_source, ce.teacher = "live", {}
    for own, terms in ((ce, ["ce"]), (avg, ["ce", "kd"])):
        files = [OmegaConf.load(config_directory() / "loss" / f"{term}.yaml") for term in terms]
        own.loss = OmegaConf.merge(*(file.loss for file in files))
        own.coef = OmegaConf.merge(*(file.coef for file in files), own.coef)
        own.weighting = OmegaConf.load(config_directory() / "weighting" / "uniform.yaml")
    return {"ce": ce, "avg": avg, "cached": config, "live": live}


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
