"""A view is read row by row from its maps, as the shards were encoded."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_store import ROWS, a_store, built, pixels_of

from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.storage import encode
from records import EXAMINED


@settings(max_examples=60)
@given(index=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=60))
@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_rows_and_checksums_in_any_order_and_repeated_are_those_of_a_naive_loop(tmp_path, storage, index):
    store = a_store(tmp_path, storage)
    view = (store if store.is_complete(2) else built(tmp_path, storage=storage)).open(2)
    whole = view.whole()
    assert view.rows(torch.tensor(index)).equal(torch.stack([whole[i] for i in index]))
    assert view.pixels(torch.tensor(index)).equal(pixels_of(2)[index])


@pytest.mark.parametrize("row", [-1, ROWS])
def test_a_row_that_the_split_does_not_have_is_never_another_row(tmp_path, row):
    with pytest.raises(IndexError):
        built(tmp_path).open(1).rows(torch.tensor([0, row]))


def test_an_unverified_truncated_shard_is_refused_by_name_when_it_is_read(tmp_path):
    store = built(tmp_path)
    file = store.shard_file(1, 0)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=file.name):
        store.open(1).rows(torch.tensor([0]))


@pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's")
def test_gathering_rows_of_a_large_view_takes_no_private_memory_beyond_them(tmp_path):
    rows, width = 4 * 2048, 2048  # 64 MiB of float32
    store = a_store(tmp_path, tensor="logits", rows=rows, shard_rows=2048)
    store.begin((width,), EXAMINED, {})
    for number in store.shards():
        values = torch.full((2048, width), float(number))
        store.write(1, number, encode(values, "float32"), torch.arange(2048))
    del values
    index = torch.arange(0, rows, 64)  # touches every shard; 1 MiB in all
    store.open(1).rows(index)
    before = private_bytes()
    view = store.open(1)
    found = view.rows(index)
    assert private_bytes() - before < 12 * 2**20
    assert found[:, 0].equal(index.div(2048, rounding_mode="floor").float())


def private_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
