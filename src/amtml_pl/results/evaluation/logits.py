"""Compute the logits of a run's student and teachers for images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.models.layout import device_for
from amtml_pl.results.evaluation.corruptions import Images
from amtml_pl.results.evaluation.images import EvaluatedImages
from amtml_pl.results.run import FinishedRun
from amtml_pl.results.teachers import RecordedTeacher
from amtml_pl.types import ModelOutputs

# The autocast type of a trainer's precision; the others compute in the type of the weights.
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def logits_of(
    network: Callable[[Images], ModelOutputs],
    images: EvaluatedImages,
    device: torch.device,
    precision: AbstractContextManager[object],
    change: Callable[[Images, Int64[Tensor, " B"]], Images] | None = None,
) -> Float[Tensor, "N K"]:
    """Return a network's logits for all images, on the CPU.

    Args:
        network: a student or a teacher, in evaluation mode.
        images: N of them.
        device: of the network.
        precision: entered around every forward pass.
        change: applied to images and their positions in the split before the pass.
    """
    logits = []
    with torch.inference_mode():
        for batch, index in images.batches():
            changed = batch if change is None else change(batch, index)
            with precision:
                logits.append(network(changed.to(device)).logits.float().cpu())
    return torch.cat(logits)


def all_teacher_logits(
    run: FinishedRun, images: EvaluatedImages
) -> tuple[dict[str, Float[Tensor, "N K"]], dict[str, str]]:
    """Return logits by ``teacher/<name>``, and the reason for each part that cannot be found."""
    found: dict[str, Float[Tensor, "N K"]] = {}
    left_out: dict[str, str] = {}
    for teacher in run.teachers:
        try:
            found[f"teacher/{teacher.name}"] = teacher_logits(run, teacher, images)
        except UserError as error:
            left_out[f"teacher/{teacher.name}"] = error.what
    if not run.teachers:
        left_out["teachers"] = "the run has no teachers"
    elif left_out:
        left_out["ensemble"] = f"{len(left_out)} of {len(run.teachers)} teachers have no logits here"
    return found, left_out


def teacher_logits(
    run: FinishedRun, teacher: RecordedTeacher, images: EvaluatedImages
) -> Float[Tensor, "N K"]:
    """Return a teacher's cached or computed logits; a UserError if neither is possible."""
    if teacher.node["head"] == "none":
        raise UserError(f"Teacher {teacher.name!r} gives hints alone (head=none).")
    if images.own and images.rows.name != "train":
        cached = teacher.cached_logits(images.digest, images.rows)
        if cached is not None:
            return cached
    loaded, device = teacher.load(), device_of(run)
    loaded.network.to(device)
    return logits_of(loaded, images, device, nullcontext())


def device_of(run: FinishedRun) -> torch.device:
    """Return the device for a run's networks: the accelerator, unless it chose the CPU."""
    return device_for(run.config["trainer"].get("accelerator"))


def precision_of(run: FinishedRun) -> AbstractContextManager[object]:
    """Return the autocast context of the run's own evaluation."""
    dtype = AUTOCAST.get(str(run.config["trainer"].get("precision", "32-true")))
    return nullcontext() if dtype is None else torch.autocast(device_of(run).type, dtype=dtype)
