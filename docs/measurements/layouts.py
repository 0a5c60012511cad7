"""Compare channels-last with channels-first for every network of conf/student, in turn.

    OMP_NUM_THREADS=1 python docs/measurements/layouts.py [REPETITIONS]

Prints the best time of forward and backward of 32 images in each layout, and their ratio.
"""

from __future__ import annotations

import sys
import time

import torch
from hydra import compose, initialize_config_dir

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.models.layout import set_layout

BATCH = 32


def main() -> None:
    """Measure, and print a Markdown table."""
    repetitions = int(sys.argv[1]) if sys.argv[1:] else 6
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    sys.stdout.write("| network | channels first, ms | channels last, ms | ratio |\n|---|---|---|---|\n")
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        for file in sorted((config_directory() / "student").glob("*.yaml")):
            seconds: dict[bool, list[float]] = {False: [], True: []}
            config = compose("train", overrides=[f"student={file.stem}", "dataset=cifar10_jpeg"])
            networks = {last: build_object(config.student.network) for last in seconds}
            set_layout(networks[True], channels_last=True, compiled=False)
            for _ in range(repetitions):
                for last, network in networks.items():
                    start = time.perf_counter()
                    torch.nn.functional.cross_entropy(network(images), labels).backward()
                    seconds[last].append(time.perf_counter() - start)
            first, last = (1e3 * min(seconds[each]) for each in (False, True))
            sys.stdout.write(f"| {file.stem} | {first:.1f} | {last:.1f} | {first / last:.2f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
