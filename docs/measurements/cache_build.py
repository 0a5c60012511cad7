"""Compare a cache build with bare forward passes of the same teachers, in turn and in one process.

    python docs/measurements/cache_build.py [REPETITIONS]

The bare passes take the same augmented images from memory, in the build's batches and memory layout. They
store nothing. Prints images per second through all teachers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from amtml_pl.benchmark import benchmark_of
from amtml_pl.config.paths import config_directory
from amtml_pl.system.console import quieten
from amtml_pl.teachers.cache.compute import batches_of, ready_for_computing
from amtml_pl.training.benchmark.benchmark_record import Statistic
from amtml_pl.training.benchmark.short_fit import silenced_console
from amtml_pl.training.run_cache import RunCache

IMAGES = 4096
WORDS = (
    "experiment=cifar10_jpeg",
    "method=amtml_adapter",
    "teacher=[resnet32,resnet56,resnet110]",
    "trainer=cpu",
)


def measure(folder: Path, repetitions: int) -> tuple[list[float], list[float]]:
    """Return the images per second of builds, and of bare passes."""
    nothing = [f"paths.{name}={folder}/none" for name in ("data", "teachers")]
    config = compose("train", overrides=[*WORDS, *nothing])
    made = benchmark_of(config, folder, repetitions=repetitions, steps=1, images=IMAGES)
    settings, data = made.variants["cached"], made.data()
    options, teachers = settings.cache.build, settings.teachers()

    def cache_in(place: Path) -> RunCache:
        return RunCache(replace(settings, cache=replace(settings.cache, root=place)), teachers, data, {})

    cache_in(folder / "begun").provide([1])
    networks = [ready_for_computing(teacher.load(), options).network.network for teacher in teachers]
    split, batches = data.split("train"), []
    for index in batches_of(torch.arange(len(data.split("train"))), options.batch_size):
        batches.append(data.augment(split.stored.images[split.rows[index]], index, 1))
    builds, bare = [], []
    for repetition in range(repetitions):
        place = folder / f"cache-{repetition}"
        shutil.copytree(folder / "begun", place, ignore=shutil.ignore_patterns("view-*"))
        cache, start = cache_in(place), time.perf_counter()
        cache.provide([1])
        built = time.perf_counter()
        with torch.inference_mode():
            for network in networks:
                for images in batches:
                    network(images)
        builds.append(len(split) / (built - start))
        bare.append(len(split) / (time.perf_counter() - built))
    return builds, bare


def main() -> None:
    """Measure, and print the rates with their ratio."""
    quieten()
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_directory()), version_base="1.3"),
        silenced_console(),
    ):
        builds, bare = measure(Path(folder), int(sys.argv[1]) if sys.argv[1:] else 5)
    ratios = [build / own for build, own in zip(builds, bare, strict=True)]
    for name, values in {"build": builds, "bare": bare, "build ÷ bare": ratios}.items():
        found = Statistic.of(values)
        sys.stdout.write(f"{name}: {found.median:.3g} ({found.spread:.2g})\n")


if __name__ == "__main__":
    main()
