"""A store on disk: written rows are read back, and damaged files are refused by name."""

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cache import tree
from tiny_store import CAUSES, ROWS, SHAPE, SHARD_ROWS, a_store, built, values_of, write

from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.catalogue import FORMAT, folder_bytes, stores_below
from amtml_pl.teachers.cache.storage import decode, encode, stored_bytes
from records import EXAMINED


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_a_view_is_read_back_as_its_shards_were_encoded(tmp_path, storage):
    store = built(tmp_path, storage=storage)
    parts = [encode(part, storage) for part in values_of(1).split(SHARD_ROWS)]
    expected = torch.cat([decode(part["values"], part.get("scale")) for part in parts])
    assert store.open(1).whole().equal(expected)
    assert store.open(1).rows(torch.arange(ROWS)).equal(expected)
    assert expected.dtype == (torch.float16 if storage == "float16" else torch.float32)


@pytest.mark.parametrize("rows", [1, SHARD_ROWS, SHARD_ROWS + 1])
def test_every_number_of_rows_is_divided_without_gap_or_overlap(tmp_path, rows):
    store = a_store(tmp_path, rows=rows)
    assert [row for number in store.shards() for row in store.rows_of(number)] == list(range(rows))


def test_an_existing_folder_decides_the_rows_of_a_shard(tmp_path):
    built(tmp_path)
    later = a_store(tmp_path, shard_rows=1000)
    assert later.shards() == [0, 1, 2, 3, 4]
    assert later.is_complete(1)
    assert later.open(1).whole().equal(values_of(1))


def test_the_manifest_has_the_fingerprint_and_facts_of_the_numbers(tmp_path):
    store = a_store(tmp_path)
    assert store.manifest() is None
    assert store.shape is None
    built(tmp_path)
    manifest = a_store(tmp_path).manifest()
    assert manifest.fingerprint == {**CAUSES, "format": FORMAT, "storage": "float32"}
    assert manifest.facts == EXAMINED
    assert a_store(tmp_path).shape == SHAPE


def test_the_bytes_of_a_view_are_those_on_disk_but_for_headers(tmp_path):
    store = built(tmp_path, views=(1,))
    shards = sum(file.stat().st_size for file in store.folder.glob("*.safetensors"))
    assert 0 <= shards - store.rows * stored_bytes(store.shape, store.storage) <= 400 * len(store.shards())
    assert folder_bytes(store.folder) == sum(len(content) for content in tree(store.folder).values())


def test_opening_an_incomplete_view_is_refused_with_the_shards_that_it_lacks(tmp_path):
    store = built(tmp_path)
    write(store, 3, [0, 2])
    with pytest.raises(UserError, match=r"View 3 .* is incomplete .missing shards: \[1, 3, 4\]"):
        store.open(3)
    assert store.views() == [1, 2]


def test_a_changed_field_of_the_fingerprint_is_named_with_both_values(tmp_path):
    store = built(tmp_path)
    file = store.folder / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(UserError, match=r"data\.seed: got 7, expected 0") as raised:
        a_store(tmp_path).manifest()
    assert str(store.folder) in raised.value.fix


@settings(max_examples=30)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), number=st.integers(0, 4))
def test_a_flipped_bit_anywhere_in_a_shard_is_a_wrong_checksum(tmp_path, place, bit, number):
    store = a_store(tmp_path)
    if not store.is_complete(1):
        built(tmp_path)
    file = store.shard_file(1, number)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[int(place * len(whole))] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        with pytest.raises(UserError, match="checksum") as raised:
            store.verify(1)
        assert file.name in raised.value.what
        assert raised.value.fix.startswith(f"run rm -r '{file}'")
    finally:
        file.write_bytes(whole)
    store.verify(1)


DAMAGED_RECORDS = {
    "not JSON": lambda text: text[: len(text) // 2],
    "without shards": lambda text: "{}",
    "a checksum cut off": lambda text: text.replace(json.loads(text)["shards"][0]["sha256"], "abc"),
    "rows of another shard": lambda text: re.sub(r'("rows": \[\s*)0', r"\g<1>1", text),
    "a shard twice": lambda text: json.dumps({"view": 1, "shards": json.loads(text)["shards"][:1] * 2}),
}


@pytest.mark.parametrize("damage", DAMAGED_RECORDS.values(), ids=DAMAGED_RECORDS.keys())
def test_a_damaged_record_is_refused_and_names_the_file_to_remove(tmp_path, damage):
    store = built(tmp_path)
    file = store.record_file(1)
    text = file.read_text()
    file.write_text(damage(text))
    assert file.read_text() != text
    for read in (store.missing, store.verify, store.open):
        with pytest.raises(UserError, match=file.name) as raised:
            read(1)
        assert raised.value.fix.startswith(f"run rm -r '{file}'")


@pytest.mark.parametrize(("field", "value"), [("shard_rows", 0), ("shape", "abc"), ("rows", ROWS + 1)])
def test_a_manifest_with_a_wrong_value_is_refused_and_names_the_folder_to_remove(tmp_path, field, value):
    store = built(tmp_path)
    file = store.folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(UserError, match=field) as raised:
        a_store(tmp_path).missing(1)
    assert raised.value.fix.startswith(f"run rm -r '{store.folder}'")


def test_a_folder_where_a_shard_would_be_is_refused_by_name(tmp_path):
    store = built(tmp_path)
    file = store.shard_file(1, 2)
    file.unlink()
    file.mkdir()
    for read in (store.verify, lambda view: store.open(view).whole()):
        with pytest.raises(UserError, match=rf"The cache file .*{file.name} cannot be read") as raised:
            read(1)
        assert raised.value.fix.startswith(f"run rm -r '{file}'")


def test_the_runs_that_used_a_store_are_listed_once_each(tmp_path):
    store = built(tmp_path)
    for run, command in ((tmp_path / "b", "two"), (tmp_path / "a", "old"), (tmp_path / "a", "one")):
        store.note_use(run, command)
    (stored,) = stores_below(tmp_path)
    uses = sorted((Path(use.run).name, use.command) for use in stored.users())
    assert uses == [("a", "one"), ("b", "two")]


def test_a_note_of_use_that_cannot_be_written_is_left_out_silently(tmp_path):
    store = built(tmp_path)
    (store.folder / "used_by").write_text("a file where the folder would be")  # root may write anywhere else
    before = tree(store.folder)
    store.note_use(tmp_path / "run", "command")
    assert tree(store.folder) == before
