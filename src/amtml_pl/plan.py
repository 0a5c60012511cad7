"""What a run needs, and what of it is missing, in the order it is made."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.filesize import decimal
from rich.table import Table
from torch.func import functional_call

from amtml_pl.entry_point import console
from amtml_pl.errors import UserError
from amtml_pl.features import TappedNetwork, cost, evaluation_mode
from amtml_pl.identity import run_folder
from amtml_pl.packing import DatasetSource, PackedDataset, is_packed, packed_folder
from amtml_pl.recipe import has_own_weights, recipe, typed_recipe
from amtml_pl.runs import RunFolder


@dataclass(frozen=True)
class PlanStep:
    """One thing that a run needs.

    Attributes:
        what: its name.
        state: where it stands, in words.
        missing: whether it has to be made first.
        size: bytes on disk, None where unknown or nothing is written.
        seconds: estimated time to make it, None where unknown or nothing is to be done.
        by_hand: the command or place that provides it, where ``prepare`` does not.
    """

    what: str
    state: str
    missing: bool = False
    size: int | None = None
    seconds: float | None = None
    by_hand: str | None = None


def make_plan(
    config: DictConfig, source: DatasetSource, student: TappedNetwork, teachers: Mapping[str, TappedNetwork]
) -> list[PlanStep]:
    """Looks for everything that the run needs and estimates what making it takes.

    Times come from one timed pass of every network on this machine's CPU, so they are good to a factor of
    about two there, and an upper bound for an accelerator.
    """
    packed_root = packed_root_of(config)
    here = is_packed(source, packed_root) or source.missing() is None
    images = training_images(config, source, packed_root) if here else None  # what is missing is said at once
    size = config.dataset.image_size
    steps = data_steps(config, source, packed_root)
    steps += [teacher_step(config, name, network, images) for name, network in teachers.items()]
    own = cost(student, size)
    epochs = config.trainer.max_epochs
    seconds = None
    if images is not None:
        forwards = sum(seconds_per_image(network, size, training=False) for network in teachers.values())
        seconds = images * epochs * (seconds_per_image(student, size, training=True) + forwards)
    what = f"student ({own.parameters:,} parameters, {own.macs / 1e6:.1f} M MACs)"
    steps.append(PlanStep(what, f"{epochs} epochs, losses {', '.join(config.loss)}", seconds=seconds))
    return steps


def packed_root_of(config: DictConfig) -> Path:
    """The folder of packed data sets, shared by all runs."""
    return Path(config.paths.data) / "packed"


def data_steps(config: DictConfig, source: DatasetSource, packed_root: Path) -> list[PlanStep]:
    """The raw data, needed only until it is packed, and the packed data."""
    folder = packed_folder(source, packed_root)
    if is_packed(source, packed_root):
        size = sum(file.stat().st_size for file in folder.iterdir())
        return [PlanStep(f"data set {config.dataset.name}", f"packed in {folder}", size=size)]
    missing = source.missing()
    download = source.download_bytes()
    if missing is None:
        raw = PlanStep(f"data set {config.dataset.name}", "found")
    else:
        state = "missing" if download is None else "to download"
        raw = PlanStep(f"data set {config.dataset.name}", state, True, size=download, by_hand=missing)
    return [raw, PlanStep("packed data", f"to write to {folder}", True, by_hand="prepare=true")]


def teacher_step(config: DictConfig, name: str, network: TappedNetwork, images: int | None) -> PlanStep:
    """Where a teacher's weights come from."""
    node = config.teacher[name]
    if has_own_weights(config, name):
        return PlanStep(f"teacher {name}", f"weights from {node.weights.path or 'its constructor'}")
    own = recipe(config, name)
    record = teacher_folder(config, name, own).completed()
    if record is not None:
        return PlanStep(f"teacher {name}", f"trained, val/acc {record['metrics']['val/acc']:.4f}")
    epochs = own.trainer.max_epochs
    seconds = None
    if images is not None:
        seconds = images * epochs * seconds_per_image(network, config.dataset.image_size, training=True)
    return PlanStep(
        f"teacher {name}",
        f"to train, {epochs} epochs of {node.recipe}",
        missing=True,
        seconds=seconds,
        by_hand=None if config.prepare else teacher_command(config, name),  # costs half a second
    )


def teacher_folder(config: DictConfig, name: str, own: DictConfig) -> RunFolder:
    """The run folder of a teacher that its recipe ``own`` trains."""
    return RunFolder(run_folder(own, str(config.teacher[name].recipe), network_choice(name)))


def network_choice(name: str) -> str:
    """Which student YAML the teacher's network is; its own name where the command named none."""
    return chosen(f"student@teacher.{name}.network") or name


def chosen(group: str) -> str | None:
    """What the command chose of a group; None where there is no command, or nothing of the group."""
    if not HydraConfig.initialized():
        return None
    choice = HydraConfig.get().runtime.choices.get(group)
    return None if choice is None else str(choice)


def teacher_command(config: DictConfig, name: str) -> str:
    """The command that trains a teacher by hand, into the folder where this run looks for it."""
    choices = {"student": network_choice(name)}
    if (dataset := chosen("dataset")) is not None:
        choices["dataset"] = dataset
    return shlex.join(["python", "-m", "amtml_pl.train", *typed_recipe(config, name, choices)])


def training_images(config: DictConfig, source: DatasetSource, packed_root: Path) -> int | None:
    """Images per epoch; None while the data set is not packed and its size is not known otherwise."""
    if config.data.train_size is not None:
        return int(config.data.train_size)
    if is_packed(source, packed_root):
        return len(PackedDataset.open(packed_folder(source, packed_root)).splits["train"])
    known = config.dataset.get("train_images")
    return None if known is None else int(known)


def seconds_per_image(network: TappedNetwork, image_size: int, *, training: bool, images: int = 16) -> float:
    """What an image takes on this machine's CPU: a forward, and with ``training`` its backward too."""
    batch = torch.zeros(images, 3, image_size, image_size)
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}

    def once() -> float:
        start = time.perf_counter()
        logits = functional_call(network, parameters, (batch,)).logits
        if training:
            torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
        return time.perf_counter() - start

    with evaluation_mode(network), torch.set_grad_enabled(training):  # blank images must teach nothing
        return min(once(), once()) / images


def show_plan(plan: list[PlanStep], title: str) -> None:
    """Prints the plan as a table."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("", "state", "size", "estimated time"):
        table.add_column(column, overflow="fold")
    for step in plan:
        size = "" if step.size is None else decimal(step.size)
        table.add_row(step.what, step.state, size, "" if step.seconds is None else duration(step.seconds))
    console.print(table)


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def refuse_missing(plan: list[PlanStep]) -> None:
    """Turns everything missing into one error.

    Raises:
        UserError: if anything of the plan is missing.
    """
    missing = [step for step in plan if step.missing]
    if missing:
        listed = "\n".join(f"  - {step.what}: {step.state} ({step.by_hand})" for step in missing)
        raise UserError(
            f"prepare=false, and {len(missing)} of what the run needs is missing:\n{listed}",
            fix="prepare=true",
        )
