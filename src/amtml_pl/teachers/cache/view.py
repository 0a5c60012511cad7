"""The rows of one view, mapped from its shards and shared by all processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int64, Num
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.system.records import Count, Record, find_record
from amtml_pl.teachers.cache.storage import decode


@dataclass
class StoredView:
    """A complete view of one tensor; each shard has ``shard_rows`` rows but the last."""

    files: tuple[Path, ...]
    shard_rows: int
    _shards: list[dict[str, Tensor]] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shards(self) -> list[dict[str, Tensor]]:
        """Each shard's ``values (R, ...)``, ``pixels (R,)`` and, for int8, ``scale (C,)``."""
        if self._shards is None:
            self._shards = [mapped(file) for file in self.files]
        return self._shards

    def rows(self, index: Int64[Tensor, " B"]) -> Float[Tensor, "B ..."]:
        """Return the given rows, decoded, in the order of ``index``."""
        return self._gather(index, "values")

    def pixels(self, index: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """Return the checksums of the pixels that the given rows were computed from."""
        return self._gather(index, "pixels")

    def whole(self) -> Float[Tensor, "N ..."]:
        """Return all rows, decoded."""
        return torch.cat([decode(shard["values"], shard.get("scale")) for shard in self.shards])

    def _gather(self, index: Int64[Tensor, " B"], name: str) -> Num[Tensor, "B ..."]:
        """Return rows of a tensor; they are sorted first, to read each shard once."""
        order = index.argsort()
        rising = index[order]
        last = torch.arange(1, len(self.shards)) * self.shard_rows
        parts = []
        for number, rows in enumerate(rising.tensor_split(torch.searchsorted(rising, last))):
            if len(rows):
                shard = self.shards[number]
                picked = shard[name].index_select(0, rows - number * self.shard_rows)
                parts.append(decode(picked, shard.get("scale")) if name == "values" else picked)
        return torch.cat(parts)[order.argsort()]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the maps, which another process opens itself."""
        return {**self.__dict__, "_shards": None}


def mapped(file: Path) -> dict[str, Tensor]:
    """Return a shard's mapped tensors; an unreadable or other file is a UserError."""
    try:
        with safe_open(file, framework="pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The cache file {file} cannot be read ({error}).", fix=rebuild_fix(file)) from error
    if not is_shard(tensors):
        listed = ", ".join(f"{k:.40} {t.dtype} {tuple(t.shape)}" for k, t in [*tensors.items()][:5])
        raise UserError(
            f"The cache file {file} has wrong tensors (got {listed or 'none'}, expected values and pixels).",
            fix=rebuild_fix(file),
        )
    return tensors


def is_shard(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if tensors are rows, their pixels' checksums and, for int8, a scale."""
    if not {"values", "pixels"} <= tensors.keys() <= {"values", "pixels", "scale"}:
        return False
    values, pixels, scale = tensors["values"], tensors["pixels"], tensors.get("scale")
    is_int8 = scale is not None and values.dtype == torch.int8 and scale.shape == values.shape[1:2]
    is_float = scale is None and values.dtype in (torch.float16, torch.float32)
    has_pixels = pixels.dtype == torch.int64 and pixels.shape == values.shape[:1]
    return (is_int8 or is_float) and values.ndim >= 2 and has_pixels


def rebuild_fix(path: Path) -> str:
    """Return the instruction for building a file or folder again."""
    return f"run rm -r '{path}', then repeat the command to compute the outputs again"


class ShardRecord(Record):
    """One complete shard in a view's record."""

    file: str
    rows: tuple[Count, Count]
    bytes: Count
    sha256: Annotated[str, Field(min_length=64, max_length=64)]


class ViewRecord(Record):
    """The shards of a view, in order."""

    view: Count
    shards: tuple[ShardRecord, ...]


def recorded_shards(file: Path, view: int, shards: Mapping[int, tuple[str, range]]) -> dict[int, ShardRecord]:
    """Return the shards that a view's record lists, by number; wrong entries are a UserError."""
    if (record := find_record(ViewRecord, file, fix=rebuild_fix(file))) is None:
        return {}
    listed = {(entry.file, entry.rows): entry for entry in record.shards}
    keys = {number: (name, (rows.start, rows.stop)) for number, (name, rows) in shards.items()}
    entries = {number: listed[key] for number, key in keys.items() if key in listed}
    if record.view != view or len(entries) != len(record.shards):
        what = f"The cache file {file} does not list the shards of view {view} in this folder."
        raise UserError(what, fix=rebuild_fix(file))
    return entries
