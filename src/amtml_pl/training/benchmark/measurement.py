"""Measurements of a benchmark: real runs, a few steps at a time and in turn.

Steps, cache build and memory are those of a run's stages and trainer.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import pack
from amtml_pl.models.layout import device_for
from amtml_pl.results.evaluation.latency import cpu_name
from amtml_pl.runs.record import Execution
from amtml_pl.training.assemble import data_module
from amtml_pl.training.benchmark.bare_loop import LAYOUTS, bare_loops
from amtml_pl.training.benchmark.benchmark_record import BreakEven, Conditions, Statistic
from amtml_pl.training.benchmark.short_fit import (
    ShortFit,
    images_are_packed,
    memory_of_short_fit,
    silenced_console,
    untrained_teachers,
)
from amtml_pl.training.plan_table import training_images, views_of_run
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.settings import Settings

MEMORY_RUNS = 3


@dataclass(frozen=True)
class Benchmark:
    """Measurements of one experiment, all on the same images with the same teachers.

    Attributes:
        original: settings of the experiment.
        variants: the same on few images, by name: ce, avg, cached, live.
        execution: what the experiment chooses, for all variants.
    """

    original: Settings
    variants: Mapping[str, Settings]
    folder: Path
    repetitions: int
    steps: int
    execution: Execution

    def figures(self) -> dict[str, Statistic]:
        """Return all measurements, by name."""
        with silenced_console():
            return self.step_figures() | self.build_figures() | self.memory_figures()

    def step_figures(self) -> dict[str, Statistic]:
        """Return milliseconds per step of each variant, measured in turn, and derived figures."""
        fits = {
            name: ShortFit(settings, self.folder / name, self.execution)
            for name, settings in self.variants.items()
        }
        bare = bare_loops(self.variants["ce"], fused=self.execution.fused)
        milliseconds: dict[str, list[float]] = {name: [] for name in (*fits, *LAYOUTS)}
        shares, order = [], [*fits, *bare]
        for repetition in range(self.repetitions):
            for name in order if repetition % 2 == 0 else reversed(order):
                if name in bare:
                    seconds = bare[name].seconds(self.steps)
                else:
                    timer = fits[name].steps()
                    seconds = timer.steps
                milliseconds[name].append(1e3 * statistics.median(seconds))
                if name == "cached":
                    shares.append(statistics.median(timer.inputs) / statistics.median(timer.steps))
        ce, cached, live = (milliseconds[name] for name in ("ce", "cached", "live"))
        limit = [min(steps) for steps in zip(*(milliseconds[name] for name in bare), strict=True)]
        return {
            **{f"{name}_step_ms": Statistic.of(values) for name, values in milliseconds.items()},
            "ratio_to_limit": ratio(limit, cached),
            "ratio_cached_to_ce": ratio(cached, ce),
            "ratio_live_to_cached": ratio(live, cached),
            "input_share": Statistic.of(shares),
            "compile_seconds": Statistic.of([fits["cached"].ready.module.spent.compile_seconds]),
        }

    def build_figures(self) -> dict[str, Statistic]:
        """Return images per second of the cache build, for a view after the first one."""
        settings, rates = self.variants["cached"], []
        begun, teachers, data = self.folder / "begun", settings.teachers(), self.data()

        def cache_in(folder: Path) -> RunCache:
            own = replace(settings, cache=replace(settings.cache, root=folder))
            return RunCache(own, teachers, data, {})

        cache_in(begun).provide([1])  # writes also what all views share
        for repetition in range(self.repetitions):
            folder = self.folder / f"cache-{repetition}"
            shutil.copytree(begun, folder, ignore=shutil.ignore_patterns("view-*"))
            cache, start = cache_in(folder), time.perf_counter()
            cache.provide([1])
            rates.append(len(cache.split) / (time.perf_counter() - start))
        return {"build_images_per_second": Statistic.of(rates)}

    def memory_figures(self) -> dict[str, Statistic]:
        """Return peak private memory, in new processes, of runs with cache and with labels only."""
        memory: dict[str, list[float]] = {"ce": [], "cached": []}
        resident: list[float] = []
        spawn = multiprocessing.get_context("spawn")
        for repetition in range(min(self.repetitions, MEMORY_RUNS)):
            for variant in memory:
                folder = self.folder / f"memory-{variant}-{repetition}"
                with ProcessPoolExecutor(1, mp_context=spawn) as process:
                    job = process.submit(memory_of_short_fit, self.variants[variant], folder, self.execution)
                    peak, beside = job.result()
                memory[variant] += peak
                if variant == "cached":
                    resident.append(beside)
        extra = [a - b for a, b in zip(memory["cached"], memory["ce"], strict=True)]
        return {
            "ce_peak_mb": Statistic.of(memory["ce"]),
            "peak_extra_mb": Statistic.of(extra),
            "teacher_parameters_resident": Statistic.of(resident),
        }

    def data(self) -> PackedDataModule:
        """Return the images of all variants."""
        settings = self.variants["cached"]
        packed = pack(settings.dataset.source.build(), settings.dataset.packed_root)
        return data_module(settings, packed)

    def break_even(self, figures: Mapping[str, Statistic]) -> BreakEven:
        """Return after how many epochs the cache has paid for its build.

        With E epochs and V views the first run computes min(V, E) views, every later run none.
        """
        names = ("live_step_ms", "cached_step_ms", "build_images_per_second")
        live, cached, rate = (figures[name].median or 0.0 for name in names)
        images = training_images(self.original, self.original.dataset.source.build())
        images = images or len(self.data().split("train"))
        epochs, distinct = self.original.trainer.epochs, views_of_run(self.original)
        saved = images / self.variants["cached"].data.batch_size * (live - cached) / 1e3
        building = images / rate
        paid = next((e for e in range(1, epochs + 1) if e * saved >= min(distinct, e) * building), None)
        return BreakEven(
            seconds_saved_per_epoch=saved,
            seconds_to_build_a_view=building,
            views=distinct,
            epochs=epochs,
            paid_after_epochs_of_the_first_run=paid,
            seconds_saved_in_the_first_run=epochs * saved - distinct * building,
            seconds_saved_in_every_later_run=epochs * saved,
        )

    def conditions(self) -> Conditions:
        """Return the conditions of the measurements."""
        own = self.variants["cached"]
        return Conditions(
            images=f"of {own.dataset.name}" if images_are_packed(self.original) else "synthetic",
            untrained_teachers=untrained_teachers(self.original),
            classes=own.dataset.num_classes,
            batch_size=own.data.batch_size,
            repetitions=self.repetitions,
            steps_per_repetition=self.steps,
            images_in_the_cache=own.data.train_size,
            threads=torch.get_num_threads(),
            processor=cpu_name(),
            execution=str(self.execution),
            gpu=torch.cuda.get_device_name() if device_for("auto").type == "cuda" else None,
        )


def ratio(values: Sequence[float], others: Sequence[float]) -> Statistic:
    """Return the statistic of two measurements' ratio in each repetition."""
    return Statistic.of([a / b for a, b in zip(values, others, strict=True)])
