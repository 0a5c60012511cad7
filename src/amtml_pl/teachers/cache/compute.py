"""Compute and check a teacher's outputs for the rows of one shard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.models.layout import device_for, set_execution
from amtml_pl.teachers.cache.storage import Storage, encode, encode_logits, pixel_checksums, unusable_rows
from amtml_pl.teachers.live import Teacher


@dataclass(frozen=True)
class BuildOptions:
    """How teachers run during a build; a precision other than float32 uses autocast."""

    batch_size: int = 256
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    device: str | None = None

    def resolved_device(self) -> torch.device:
        """Return the device that the teachers run on."""
        return device_for(self.device)

    def autocast(self) -> torch.autocast:
        """Return the autocast context for a forward pass."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.resolved_device().type, dtype=dtype, enabled=dtype != torch.float32)

    def about(self) -> dict[str, bool | int | str]:
        """Return these options as a manifest stores them."""
        return {**vars(self), "device": self.resolved_device().type, "torch": str(torch.__version__)}


@dataclass(frozen=True)
class Shard:
    """A teacher's outputs for the R rows of one shard, float32 on the CPU."""

    tensors: dict[str, Float[Tensor, "R ..."]]  # ``logits (R, K)`` and by tap ``(R, C, H, W)``
    pixels: Int64[Tensor, " R"]  # checksums of each row's pixels
    place: tuple[str, int, Sequence[int]]  # teacher, view and rows, for messages
    known_classes: list[int] | None  # those whose logits are finite; None for all

    def encoded(self, tensor: str, storage: Storage) -> dict[str, Tensor]:
        """Return a tensor as it is stored; a UserError names the first unusable sample."""
        values = self.tensors[tensor]
        if tensor == "logits" and self.known_classes is not None:
            values = values[:, self.known_classes]
        if len(rows := unusable_rows(values, storage)):
            teacher, view, sample = self.place
            worst = values[rows[0]].abs().max().item()
            fix = f"store it in float32: cache.{'logits' if tensor == 'logits' else 'hints'}=float32"
            if not math.isfinite(worst):
                fix = "correct network weights, mean and std of the teacher, or set cache.precision=float32"
            raise UserError(
                f"Output {tensor!r} of teacher {teacher!r} cannot be stored as {storage} "
                f"(got {worst} for sample {sample[int(rows[0])]} in view {view}).",
                fix=fix,
            )
        return (encode_logits if tensor == "logits" else encode)(self.tensors[tensor], storage)


def ready_for_computing(teacher: Teacher, options: BuildOptions) -> Teacher:
    """Return the teacher on its device, in the memory layout and compilation of the options."""
    teacher.network.to(options.resolved_device())
    set_execution(teacher.network.network, channels_last=options.channels_last, compiled=options.compile)
    return teacher


def compute_shard(
    teacher: Teacher,
    split: SplitRows,
    augment: Augmentation,
    view: int,
    rows: Sequence[int],
    options: BuildOptions,
    advanced: Callable[[str, int], None] = lambda _teacher, _images: None,
) -> Shard:
    """Return a teacher's outputs for exactly the pixels that a student sees."""
    device = options.resolved_device()
    parts: dict[str, list[Tensor]] = {}
    pixels = []
    for index in batches_of(torch.tensor(rows), options.batch_size):
        images = augment(split.stored.images[split.rows[index]], index, view)
        pixels.append(pixel_checksums(images))
        with options.autocast():
            outputs = teacher(images.to(device))
        for tensor, values in {"logits": outputs.logits, **outputs.features}.items():
            parts.setdefault(tensor, []).append(values.float().cpu().contiguous())
        advanced(teacher.name, len(index))
    tensors = {tensor: torch.cat(values) for tensor, values in parts.items()}
    return Shard(tensors, torch.cat(pixels), (teacher.name, view, rows), teacher.known_classes)


def batches_of(rows: Int64[Tensor, " R"], batch_size: int) -> list[Int64[Tensor, " _"]]:
    """Return the rows in batches; a last batch of one row joins the batch before.

    Some CPU kernels give other last bits for an image alone than for the same image in a batch.
    """
    batches = list(torch.split(rows, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
