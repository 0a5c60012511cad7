"""The rows of one view, mapped from its shards: what is read enters memory, shared by all processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.teacher_cache.storage import decode


@dataclass
class StoredView:
    """A complete view of one tensor.

    Attributes:
        files: the shards in order.
        shard_rows: rows of each shard but the last.
    """

    files: tuple[Path, ...]
    shard_rows: int
    _shards: list[dict[str, Tensor]] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def shards(self) -> list[dict[str, Tensor]]:
        """The shards' tensors, mapped at first use."""
        if self._shards is None:
            self._shards = [mapped(file) for file in self.files]
        return self._shards

    def rows(self, index: Int64[Tensor, " B"]) -> Float[Tensor, "B ..."]:
        """The given rows, in any order, ready to compute with."""
        return self._gather(index, "values")

    def pixels(self, index: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
        """The checksums of the pixels that the given rows were computed from."""
        return self._gather(index, "pixels")

    def whole(self) -> Float[Tensor, "N ..."]:
        """All rows."""
        return torch.cat([decode(shard["values"], shard.get("scale")) for shard in self.shards])

    def _gather(self, index: Int64[Tensor, " B"], name: str) -> Tensor:
        """Sorted first, so that each shard is read once and in order."""
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
        """Without the maps, which another process opens itself."""
        return {**self.__dict__, "_shards": None}


def mapped(file: Path) -> dict[str, Tensor]:
    """A shard's tensors, which cost no memory of their own until they are read.

    Raises:
        UserError: if the file is absent, truncated or no shard.
    """
    try:
        with safe_open(file, framework="pt") as shard:
            return {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The shard {file} cannot be read ({error}).",
            fix=f"rm -r '{file}' and repeat the command: the shard is built again",
        ) from error
