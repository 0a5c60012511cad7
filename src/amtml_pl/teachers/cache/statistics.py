"""Statistics of a cached hint: one sealed file per view, beside its shards."""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.system.files import replacing
from amtml_pl.system.records import Count, Positive, Sealed, as_json, find_record
from amtml_pl.teachers.cache.storage import decode
from amtml_pl.teachers.cache.store import TensorStore

NUMBERS_AT_ONCE = 2**21  # 16 MiB in float64; another number may change the last bits of the sums


class ViewStatistics(Sealed):
    """Sums over all rows of a complete view.

    Attributes:
        shards: the SHA-256 of each shard that the sums belong to.
        total: base64 of C float64 numbers, little-endian.
        products: the same for the upper triangle, row by row.
    """

    format: Literal[1] = 1
    view: Count
    shards: tuple[str, ...]
    channels: Positive
    count: Positive
    total: str
    products: str

    def sums(self) -> HintStatistics:
        """Return the sums as tensors."""
        products = torch.zeros(self.channels, self.channels, dtype=torch.float64)
        products[*torch.triu_indices(*products.shape)] = numbers(self.products)
        return HintStatistics(self.count, numbers(self.total), products + products.triu(1).T)


def run_statistics(store: TensorStore, views: list[int]) -> HintStatistics:
    """Return the sums over the complete views of a run, added in this order."""
    return reduce(add, (view_statistics(store, view) for view in views))


def view_statistics(store: TensorStore, view: int) -> HintStatistics:
    """Return the sums over a complete view: its file's, or computed from the stored rows.

    They are those of the rounded values that a step reads. A cache that cannot be written keeps no file.

    Raises:
        UserError: if the file is damaged, or a shard is missing.
    """
    shards = tuple(entry.sha256 for _, entry in sorted(store.record(view).items()))
    found = find_statistics(store, view)
    if found is None or found.shards != shards:
        found = summed(store, view, shards)
        with suppress(OSError), replacing(statistics_file(store, view)) as temporary:
            temporary.write_text(as_json(found))
    return found.sums()


def find_statistics(store: TensorStore, view: int) -> ViewStatistics | None:
    """Return the kept sums of a view; None without any; damage is a UserError."""
    file = statistics_file(store, view)
    return find_record(ViewStatistics, file, fix=f"run rm '{file}', then repeat the command")


def statistics_file(store: TensorStore, view: int) -> Path:
    """Return the path of the sums over a view."""
    return store.folder / f"view-{view:04d}.statistics.json"


def summed(store: TensorStore, view: int, shards: tuple[str, ...]) -> ViewStatistics:
    """Return the sums over the stored rows, in their order."""
    parts = (
        HintStatistics.of(decode(rows, shard.get("scale")))
        for shard in store.open(view).shards
        for rows in torch.split(shard["values"], max(1, NUMBERS_AT_ONCE // shard["values"][0].numel()))
    )
    sums = reduce(add, parts)
    C = len(sums.total)
    triangle = sums.products[*torch.triu_indices(C, C)]
    return ViewStatistics(
        view=view,
        shards=shards,
        channels=C,
        count=sums.count,
        total=as_text(sums.total),
        products=as_text(triangle),
    )


def as_text(values: Float[Tensor, " _"]) -> str:
    """Return float64 numbers as base64, exactly."""
    return base64.b64encode(values.numpy().astype("<f8").tobytes()).decode()


def numbers(text: str) -> Float[Tensor, " _"]:
    """Return the numbers of `as_text`."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64))
