"""A small store of feature maps, and its files: what the tests of storing have in common."""

import torch

from amtml_pl.teachers.cache.storage import encode
from amtml_pl.teachers.cache.store import TensorStore
from records import EXAMINED

ROWS, SHARD_ROWS, SHAPE = 23, 5, (3, 2, 2)
CAUSES = {"data": {"digest": "d", "seed": 0}, "augment": [{"crop": 4}], "teacher": {"weights": "w"}}


def a_store(root, storage="float32", causes=CAUSES, tensor="layer3", **changes):
    arguments = {"rows": ROWS, "shard_rows": SHARD_ROWS, **changes}
    return TensorStore(root, "resnet56", tensor, "train", causes=causes, storage=storage, **arguments)


def values_of(view, rows=ROWS):
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(view))


def pixels_of(view):
    return torch.arange(ROWS) * 186_737_000 + view  # up to 2³² - 1, which int32 cannot hold


def write(store, view, numbers=None):
    for number in store.shards() if numbers is None else numbers:
        rows = slice(store.rows_of(number).start, store.rows_of(number).stop)
        store.write(view, number, encode(values_of(view)[rows], store.storage), pixels_of(view)[rows])


def built(root, views=(1, 2), **changes):
    store = a_store(root, **changes)
    store.begin(SHAPE, EXAMINED, {"batch_size": 4})
    for view in views:
        write(store, view)
    return store
