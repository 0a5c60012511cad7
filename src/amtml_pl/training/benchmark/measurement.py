"""Measurements of a benchmark: real runs, a few steps at a time and in turn.

Steps, cache build and memory are those of a run's own stages with its trainer; nothing of the
way of a batch is written a second time here.
"""

from __future__ import annotations

import multiprocessing
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import pack
from amtml_pl.teachers.cache.compute import ready_for_computing
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.assemble import data_module
from amtml_pl.training.benchmark.peak_memory import PeakMemory
from amtml_pl.training.benchmark.record import BreakEven, Conditions, Figure
from amtml_pl.training.benchmark.short_fit import (
    ShortFit,
    images_are_packed,
    peak_memory,
    quiet,
    untrained_teachers,
)
from amtml_pl.training.plan_table import training_images, views_of_run
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.settings import Settings

VARIANTS = ("ce", "avg", "cached", "live")
MEMORY_RUNS = 3


class Benchmark:
    """Measurements of one experiment, all on the same images with the same teachers."""

    def __init__(
        self,
        original: Settings,
        variants: Mapping[str, Settings],
        folder: Path,
        *,
        repetitions: int,
        steps: int,
    ) -> None:
        self.original, self.variants = original, variants
        self.settings = variants["cached"]
        self.folder, self.repetitions, self.steps = folder, repetitions, steps

    def figures(self) -> dict[str, Figure]:
        """Return all measurements, by name."""
        with quiet():
            steps = self.step_figures()
            build = self.build_figures()
            memory = self.memory_figures()
        return steps | build | memory

    def step_figures(self) -> dict[str, Figure]:
        """Return milliseconds per step of each variant, measured in turn, and derived figures."""
        fits = {variant: ShortFit(self.variants[variant], self.folder / variant) for variant in VARIANTS}
        milliseconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        shares = []
        for repetition in range(self.repetitions):
            order = VARIANTS if repetition % 2 == 0 else VARIANTS[::-1]
            for variant in order:
                timer = fits[variant].steps()
                milliseconds[variant].append(1e3 * statistics.median(timer.steps))
                if variant == "cached":
                    shares.append(statistics.median(timer.inputs) / statistics.median(timer.steps))
        ce, cached, live = (milliseconds[name] for name in ("ce", "cached", "live"))
        return {
            **{f"{variant}_step_ms": Figure.of(values) for variant, values in milliseconds.items()},
            "ratio_cached_to_ce": Figure.of([a / b for a, b in zip(cached, ce, strict=True)]),
            "ratio_live_to_cached": Figure.of([a / b for a, b in zip(live, cached, strict=True)]),
            "input_share": Figure.of(shares),
        }

    def build_figures(self) -> dict[str, Figure]:
        """Return images per second of the cache build, and of the bare teachers.

        Of a view after the first one: what is written once for all views is there already.
        """
        rates, ratios = [], []
        self.cache_in(self.folder / "begun").provide([1])
        for repetition in range(self.repetitions):
            folder = self.folder / f"cache-{repetition}"
            shutil.copytree(self.folder / "begun", folder, ignore=shutil.ignore_patterns("view-*"))
            cache = self.cache_in(folder)
            teachers = self.teachers()
            if repetition % 2 == 0:
                building, bare = seconds(partial(cache.provide, [1])), bare_forwards(cache, teachers)
            else:
                bare, building = bare_forwards(cache, teachers), seconds(partial(cache.provide, [1]))
            rates.append(len(cache.split) / building)
            ratios.append(bare / building)
        return {"build_images_per_second": Figure.of(rates), "build_rate_ratio": Figure.of(ratios)}

    def cache_in(self, folder: Path) -> RunCache:
        """Return the cache of the run, below another folder."""
        return RunCache(replace(self.settings.cache, root=folder), self.teachers(), self.data(), {})

    def teachers(self) -> tuple[SelectedTeacher, ...]:
        """Return the teachers of the experiment."""
        return self.settings.teachers(self.settings.method.terms())

    def memory_figures(self) -> dict[str, Figure]:
        """Return peak private memory, in own processes, of runs with cache and with labels only."""
        peaks: dict[str, list[PeakMemory]] = {"ce": [], "cached": []}
        for repetition in range(min(self.repetitions, MEMORY_RUNS)):
            for variant, found in peaks.items():
                folder = self.folder / f"memory-{variant}-{repetition}"
                settings = self.variants[variant]
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                    found.append(process.submit(peak_memory, settings, folder).result())
        ce, cached = ([run.megabytes for run in peaks[name] if run.megabytes is not None] for name in peaks)
        return {
            "ce_peak_mb": Figure.of(ce),
            "peak_extra_mb": Figure.of([a - b for a, b in zip(cached, ce, strict=True)]),
            "teacher_parameters_resident": Figure.of(
                [float(run.teacher_parameters) for run in peaks["cached"]]
            ),
        }

    def data(self) -> PackedDataModule:
        """Return the images of all variants."""
        dataset = self.settings.dataset
        return data_module(self.settings, pack(dataset.source.build(), dataset.packed_root))

    def break_even(self, figures: Mapping[str, Figure]) -> BreakEven:
        """Return after how many epochs building the cache has paid for itself.

        With E epochs and V views the first run computes min(V, E) views, every later run none.
        """
        live, cached, rate = (
            figures[name].median or 0.0
            for name in ("live_step_ms", "cached_step_ms", "build_images_per_second")
        )
        images = training_images(self.original, self.original.dataset.source.build())
        images = images or len(self.data().split("train"))
        epochs, distinct = self.original.trainer.epochs, views_of_run(self.original)
        saved = images / self.settings.data.batch_size * (live - cached) / 1e3
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
        """Return what was measured, and on which machine."""
        own = self.settings
        return Conditions(
            images=f"of {own.dataset.name}" if images_are_packed(self.original) else "synthetic",
            untrained_teachers=untrained_teachers(self.original),
            classes=own.dataset.num_classes,
            batch_size=own.data.batch_size,
            repetitions=self.repetitions,
            steps_per_repetition=self.steps,
            images_in_the_cache=own.data.train_size,
            threads=torch.get_num_threads(),
            processor=platform.processor() or platform.machine(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )


def bare_forwards(cache: RunCache, teachers: Sequence[SelectedTeacher]) -> float:
    """Return seconds for loading the teachers and running them over the cached images."""
    images = cache.data.augment(
        cache.split.stored.images[cache.split.rows], torch.arange(len(cache.split)), 1
    )
    options = cache.options.build
    device = options.resolved_device()
    batches = [batch.to(device) for batch in torch.split(images, options.batch_size)]

    def forwards() -> None:
        for selected in teachers:
            network = ready_for_computing(selected.load(), options).network
            with torch.inference_mode(), options.autocast():
                for batch in batches:
                    network(batch)

    return seconds(forwards)


def seconds(work: Callable[[], object]) -> float:
    """Return how many seconds a function takes."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
