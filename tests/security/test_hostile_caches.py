"""Caches of teachers' outputs that were damaged or made up: they are read as built, or refused."""

import json
import pickle
import shutil

import pytest
import torch
from canary import PAYLOADS, outcome, refused, works
from hypothesis import given, settings
from hypothesis import strategies as st
from nested import FUZZ, nested, places, with_value
from safetensors.torch import save

from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.catalogue import (
    MANIFEST,
    TeacherExamination,
    read_store_manifest,
    recorded_views,
    stores_below,
)
from amtml_pl.teachers.cache.storage import encode
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.upkeep import damaged_shards, show_info
from records import EXAMINED

ROWS, SHAPE = 11, (2, 3, 3)
JSON = nested("../../x", "\0", "x" * 5000, "'", "float16", "[red]")


def a_store(root, storage="int8"):
    return TensorStore(root / "cache", "resnet8", "layer3", "train", ROWS, {"a": {"b": [1, "x"]}}, storage, 4)


def values():
    return torch.randn(ROWS, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(hostile):
    return built(hostile)


def built(root, storage="int8"):
    """A whole store with one view; what lay there before is gone."""
    shutil.rmtree(root / "cache", ignore_errors=True)
    made = a_store(root, storage)
    made.begin(SHAPE, EXAMINED, {"batch_size": 4})
    for number in made.shards():
        rows = slice(made.rows_of(number).start, made.rows_of(number).stop)
        made.write(1, number, encode(values()[rows], storage), torch.arange(ROWS)[rows])
    made.note_use(root / "run", "python -m amtml_pl.train experiment=digits_amtml")
    return a_store(root, storage)


def read(store):
    """All that a run does with a store before and while it reads it."""
    store.manifest()
    store.verify(1)
    view = store.open(1)
    return view.rows(torch.arange(ROWS)), view.pixels(torch.arange(ROWS))


def list_and_tidy(root):
    """All that the command does with stores of whatever making."""
    show_info(root)
    for found in stores_below(root):
        found.is_used("experiment=digits_amtml")
        found.bytes_on_disk()
        if isinstance(made := outcome(TensorStore.from_folder, found.folder), TensorStore):
            for view in recorded_views(found.folder):
                outcome(damaged_shards, made, view)


def test_a_whole_store_is_read_and_listed(store, hostile):
    rows, pixels = read(store)
    assert (rows - values()).abs().max() < 0.03
    assert pixels.equal(torch.arange(ROWS))
    list_and_tidy(hostile)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", ["view-0001.00000.safetensors", "view-0001.json", MANIFEST])
def test_a_payload_in_a_cache_is_never_run(store, hostile, canary, payload, name):
    assert works(payload(canary))
    (store.folder / name).write_bytes(pickle.dumps({"values": payload(canary)}))
    with refused():
        read(store)
    with refused():
        a_store(hostile).open(1).rows(torch.arange(ROWS))
    list_and_tidy(hostile)


FOREIGN = {
    "nothing": {},
    "fewer pixels": {"values": torch.zeros(4, *SHAPE), "pixels": torch.zeros(3, dtype=torch.int64)},
    "pixels of another type": {"values": torch.zeros(4, *SHAPE), "pixels": torch.zeros(4)},
    "int8 without scale": {"values": torch.zeros(4, *SHAPE, dtype=torch.int8), "pixels": torch.arange(4)},
    "another scale": {"values": torch.zeros(4, *SHAPE, dtype=torch.int8), "pixels": torch.arange(4),
                      "scale": torch.ones(3)},
    "no rows": {"values": torch.tensor(1.0), "pixels": torch.tensor(1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_file_of_tensors_is_no_shard_even_where_nobody_verified_it(store, kind):
    store.shard_file(1, 0).write_bytes(save(FOREIGN[kind]))
    with pytest.raises(UserError, match=r"(?s)00000.safetensors is not a shard: it holds .*rm -r"):
        store.open(1).rows(torch.arange(ROWS))


def test_a_shard_whose_header_claims_more_than_the_file_holds_is_refused(store):
    store.shard_file(1, 0).write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="cannot be read"):
        store.open(1).rows(torch.arange(ROWS))


@settings(FUZZ, max_examples=15)
@given(name=st.sampled_from([MANIFEST, "view-0001.json", "used_by"]), data=st.data(), value=JSON)
def test_anything_in_the_place_of_a_field_is_refused_or_read_as_it_was(hostile, name, data, value):
    whole, _ = read(built(hostile))
    folder = a_store(hostile).folder
    file = next((folder / "used_by").iterdir()) if name == "used_by" else folder / name
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(with_value(tree, data.draw(st.sampled_from([*places(tree)])), value)))
    found = outcome(read, a_store(hostile))
    assert isinstance(found, UserError) or found[0].equal(whole)
    list_and_tidy(hostile)


def test_a_manifest_that_claims_billions_of_shards_is_refused_and_not_counted(store):
    manifest = json.loads((store.folder / MANIFEST).read_text())
    (store.folder / MANIFEST).write_text(json.dumps({**manifest, "rows": 10**40, "shard_rows": 1}))
    with pytest.raises(UserError, match=r"has 10*0 rows in shards of 1"):
        read_store_manifest(store.folder)


@pytest.mark.parametrize(
    ("run", "command"), [("x" * 5000, "c"), ("a\0b", "c"), ("", "an 'unclosed"), ("", 3)]
)
def test_a_made_up_word_of_use_neither_stops_the_listing_nor_keeps_a_store(store, hostile, run, command):
    shutil.rmtree(store.folder / "used_by")
    (store.folder / "used_by").mkdir()
    (store.folder / "used_by" / "x.json").write_text(json.dumps({"run": run, "command": command}))
    list_and_tidy(hostile)


@pytest.mark.parametrize("key", TeacherExamination.model_fields)
@pytest.mark.parametrize("value", [None, {"x": "y"}])
def test_an_examination_with_another_value_is_refused_by_the_name_of_its_field(store, key, value):
    manifest = json.loads((store.folder / MANIFEST).read_text())
    manifest["facts"]["examination"][key] = value
    (store.folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"is damaged: facts.examination.{key}"):
        read_store_manifest(store.folder)
