"""Damaged or forged caches of teachers' outputs are read as built, or rejected."""

import json
import pickle
import shutil

import pytest
import torch
from canary import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from nested import FUZZ, nested, places, with_value
from safetensors.torch import save

from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.catalogue import MANIFEST, read_store_manifest, recorded_views, stores_below
from amtml_pl.teachers.cache.storage import encode
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.upkeep import damaged_shards, show_info
from records import EXAMINED

ROWS, SHAPE = 11, (2, 3, 3)
JSON = nested("../../x", "\0", "x" * 5000, "'", "float16", "[red]")


def a_store(root):
    return TensorStore(root / "cache", "resnet8", "layer3", "train", ROWS, {"a": {"b": [1, "x"]}}, "int8", 4)


def values():
    return torch.randn(ROWS, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def store(hostile):
    return built(hostile)


def built(root):
    """Return a complete store with one view, in the place of an earlier one."""
    shutil.rmtree(root / "cache", ignore_errors=True)
    made = a_store(root)
    made.begin(SHAPE, EXAMINED, {"batch_size": 4})
    for number in made.shards():
        rows = slice(made.rows_of(number).start, made.rows_of(number).stop)
        made.write(1, number, encode(values()[rows], "int8"), torch.arange(ROWS)[rows])
    made.note_use(root / "run", "python -m amtml_pl.train experiment=digits_amtml")
    return a_store(root)


def read(store):
    """Do all that a run does with a store."""
    store.manifest()
    store.verify(1)
    view = store.open(1)
    return view.rows(torch.arange(ROWS)), view.pixels(torch.arange(ROWS))


def list_and_tidy(root):
    """Do all that the cache command does with the stores below a folder."""
    show_info(root)
    for found in stores_below(root):
        found.is_used("experiment=digits_amtml")
        found.bytes_on_disk()
        if isinstance(made := outcome(TensorStore.from_folder, found.folder), TensorStore):
            for view in recorded_views(found.folder):
                outcome(damaged_shards, made, view)


@pytest.mark.parametrize("name", ["view-0001.00000.safetensors", "view-0001.json", MANIFEST])
def test_a_payload_in_a_cache_is_never_run(store, hostile, payload, name):
    (store.folder / name).write_bytes(pickle.dumps({"values": payload}))
    with pytest.raises(UserError):
        read(store)
    list_and_tidy(hostile)


FOREIGN = {
    "nothing": save({}),
    "fewer pixels": save({"values": torch.zeros(4, *SHAPE), "pixels": torch.zeros(3, dtype=torch.int64)}),
    "int8 without scale": save({"values": torch.zeros(4, *SHAPE).char(), "pixels": torch.arange(4)}),
    "no rows": save({"values": torch.tensor(1.0), "pixels": torch.tensor(1)}),
    "a header that claims more than the file holds": (2**63 - 1).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_another_file_is_rejected_as_a_shard(store, content):
    store.shard_file(1, 0).write_bytes(content)
    expected = r"(?s)00000.safetensors (has wrong tensors|cannot be read).*rm -r"
    with pytest.raises(UserError, match=expected):
        store.open(1).rows(torch.arange(ROWS))


@settings(FUZZ, max_examples=15)
@given(name=st.sampled_from([MANIFEST, "view-0001.json", "used_by"]), data=st.data(), value=JSON)
def test_a_store_with_any_value_in_a_field_is_rejected_or_read_unchanged(hostile, name, data, value):
    whole, pixels = read(built(hostile))
    assert (whole - values()).abs().max() < 0.03
    assert pixels.equal(torch.arange(ROWS))
    folder = a_store(hostile).folder
    file = next((folder / "used_by").iterdir()) if name == "used_by" else folder / name
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(with_value(tree, data.draw(st.sampled_from([*places(tree)])), value)))
    found = outcome(read, a_store(hostile))
    assert isinstance(found, UserError) or found[0].equal(whole)
    list_and_tidy(hostile)


def test_a_manifest_that_claims_billions_of_shards_is_rejected(store):
    manifest = json.loads((store.folder / MANIFEST).read_text())
    (store.folder / MANIFEST).write_text(json.dumps({**manifest, "rows": 10**40, "shard_rows": 1}))
    with pytest.raises(UserError, match=r"got 10*0 rows in shards of 1"):
        read_store_manifest(store.folder)


@pytest.mark.parametrize("use", [("x" * 5000, "c"), ("a\0b", "c"), ("", "an 'unclosed"), ("", 3)])
def test_a_forged_record_of_use_does_not_stop_the_listing(store, hostile, use):
    shutil.rmtree(store.folder / "used_by")
    (store.folder / "used_by").mkdir()
    record = dict(zip(("run", "command"), use, strict=True))
    (store.folder / "used_by" / "x.json").write_text(json.dumps(record))
    list_and_tidy(hostile)
