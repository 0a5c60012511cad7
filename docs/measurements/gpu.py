"""Measure on a GPU, in at most six minutes: ``make gpu``, or ``python docs/measurements/gpu.py [FOLDER]``.

It runs the tests of the marker ``gpu``, the benchmark of cifar100_amtml, and a short run of cifar10_jpeg from
labels between bare loops, and writes ``gpu.json`` and ``gpu.md`` into FOLDER. That is this folder on a GPU; a
rehearsal on a CPU, smaller, writes into ``outputs/gpu``.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from amtml_pl.config.checks import check
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.training.benchmark.bare_loop import BareLoop, bare_loops
from amtml_pl.training.benchmark.peak_memory import peak_private_memory
from amtml_pl.training.benchmark.short_fit import images_are_packed
from amtml_pl.training.pipeline import execute
from amtml_pl.training.settings import Settings, settings_of
from amtml_pl.training.stages import RunRequest

ROOT = Path(__file__).parents[2]
GPU = torch.cuda.is_available()
NAME = torch.cuda.get_device_name() if GPU else None
SECONDS = {"tests": 80, "benchmark": 140, "fit": 120}  # after which a part is stopped; 340 s together
BENCHMARK = ("benchmark.repetitions=3", "benchmark.steps=20", "benchmark.images=2048")
SMALL = ("benchmark.repetitions=1", "benchmark.steps=2", "benchmark.images=64", "data.batch_size=16")
FIT = ("experiment=cifar10_jpeg", "method=ce", "doctor=false")
SYNTHETIC = ("dataset=synthetic", f"dataset.train_images={50000 if GPU else 1000}")
LOOP_SECONDS, FIT_SECONDS = (5, 30) if GPU else (2, 4)


def main() -> None:
    """Run every part in a process with a time limit, and write both files."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else ROOT / ("docs/measurements" if GPU else "outputs/gpu")
    with tempfile.TemporaryDirectory(prefix="amtml-gpu-") as name:
        place = Path(name)
        words = [*(BENCHMARK if GPU else SMALL), f"paths.outputs={place}", f"hydra.run.dir={place}/benchmark"]
        bench = ["-m", "amtml_pl.benchmark", "experiment=cifar100_amtml", *words]
        tests = part("tests", ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"])
        found = {
            "gpu": NAME,
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "git": None if (git := git_state()) is None else git.model_dump(),
            "versions": versions(),
            "tests": tests,
            "benchmark": part("benchmark", bench, place / "benchmark" / "benchmark.json"),
            "fit": part("fit", [__file__, "--fit", name], place / "fit.json"),
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "gpu.md").write_text(page(found))
    sys.stdout.write(f"{page(found)}\nWritten to {folder}/gpu.json and gpu.md\n")
    if tests.get("status") != 0 or any("failed" in found[name] for name in ("benchmark", "fit")):
        sys.exit(1)


def part(name: str, words: list[str], file: Path | None = None) -> dict[str, Any]:
    """Run Python in a process; return what it wrote into a file, or how it ended."""
    sys.stdout.write(f"{name} ...\n")
    sys.stdout.flush()
    start, limit = time.perf_counter(), SECONDS[name] * (1 if GPU else 3)
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        ended = subprocess.run([sys.executable, *words], cwd=ROOT, timeout=limit, check=False, **output)  # noqa: S603
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {limit} s"}
    seconds = round(time.perf_counter() - start, 1)
    lines = ended.stdout.strip().splitlines() or [""]
    if file is None:
        return {"status": ended.returncode, "summary": lines[-1], "seconds": seconds}
    if ended.returncode or not file.is_file():
        return {"failed": "\n".join(lines[-20:]), "seconds": seconds}
    return {**json.loads(file.read_text()), "seconds": seconds}


def fit(place: Path) -> None:
    """Train a short run between bare loops in this process, and write ``fit.json``."""
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        original = composed(FIT)
        packed = images_are_packed(original)
        small = () if GPU else ("data.batch_size=32", "data.train_size=640", "data.val_size=100")
        words = (*FIT, *(() if packed else SYNTHETIC), *small, f"paths.outputs={place}")
        words = (*words, *(() if packed else (f"paths.data={place}/data",)))
        loops = bare_loops(composed(words), fused=True)
        before = {name: bare_rate(loop) for name, loop in loops.items()}
        images = 45_000 if GPU else 640
        epochs = max(2, round(FIT_SECONDS * statistics.median(before.values()) / images))
        settings = composed((*words, f"trainer.max_epochs={epochs}"))
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        with peak_private_memory() as private:
            record = execute(RunRequest(settings, RunFolder(place / "run"), "cifar10_jpeg", "make gpu"))
        device_mb = torch.cuda.max_memory_allocated() / 1e6 if GPU else None
    after = {name: bare_rate(loop) for name, loop in loops.items()}
    found = {
        "images": "of cifar10_jpeg" if packed else "synthetic",
        "epochs": epochs,
        "batch_size": settings.data.batch_size,
        "execution": record.execution.model_dump(),
        "images_per_second": record.timing.images_per_second if record.timing else None,
        "compile_seconds": record.timing.compile_seconds if record.timing else None,
        "bare_images_per_second": {name: [before[name], after[name]] for name in loops},
        "peak_device_mb": device_mb,
        "peak_private_mb": private[0] if private else None,
    }
    (place / "fit.json").write_text(json.dumps(found))


def composed(words: tuple[str, ...]) -> Settings:
    """Return the settings of a command."""
    config = compose("train", overrides=list(words))
    check(config)
    return settings_of(config)


def bare_rate(loop: BareLoop) -> float:
    """Return images per second of torch alone, over some seconds."""
    seconds: list[float] = []
    while sum(seconds) < LOOP_SECONDS:
        seconds += loop.seconds(50 if GPU else 2)
    return len(loop.images) / statistics.median(seconds)


def page(found: dict[str, Any]) -> str:
    """Return the page of the figures."""
    device = found["gpu"] or f"a CPU ({found['processor']}, {found['threads']} threads), no GPU"
    lines = [
        "# Measured on a GPU" if found["gpu"] else "# Rehearsal on a CPU, not a measurement of a GPU", "",
        f"Device: {device}, torch {found['versions'].get('torch')}.",
        "Command: `make gpu`. All figures are in `gpu.json`.",
        "", "| what | measured |", "|---|---|",
        f"| tests of the marker `gpu` | {found['tests'].get('failed') or found['tests']['summary']} |",
    ]  # fmt: skip
    for name in ("benchmark", "fit"):
        if "failed" in found[name]:
            lines.append(f"| {name} | failed, see `gpu.json` |")
    for name, figure in found["benchmark"].get("figures", {}).items():
        if figure["median"] is not None:
            lines.append(f"| cifar100_amtml, {name.replace('_', ' ')} | {figure['median']:.4g} |")
    own = found["fit"].get("images_per_second")
    if own:
        run = f"cifar10_jpeg, method=ce, {found['fit']['epochs']} epochs, images {found['fit']['images']}"
        lines.append(f"| {run}: images/s of the whole fit | {own:,.0f} |")
        for name, rates in found["fit"]["bare_images_per_second"].items():
            rate = statistics.mean(rates)
            what = f"{name.replace('_', ' ')} loop: images/s before and after; the fit divided by it"
            lines.append(f"| {what} | {rates[0]:,.0f}, {rates[1]:,.0f}; {own / rate:.2f} |")
        peak, kind = found["fit"]["peak_device_mb"], "device memory"
        if peak is None:
            peak, kind = found["fit"]["peak_private_mb"], "private memory"
        lines.append(
            f"| peak {kind} of the fit, MB | {'not measured here' if peak is None else f'{peak:,.0f}'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: runs are deterministic
    if sys.argv[1:2] == ["--fit"]:
        fit(Path(sys.argv[2]))
    else:
        main()
