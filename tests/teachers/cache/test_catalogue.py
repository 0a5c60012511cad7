"""Stores on a disk, and the fields in which two of them differ."""

import json
import shutil
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_store import CAUSES, a_store, built

from amtml_pl.teachers.cache.catalogue import (
    differing_fields,
    nearest_store,
    path_part,
    recorded_views,
    stores_below,
)
from records import EXAMINED

LEAVES = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from([0.0, -0.0, 1.0, "", "1"])
NESTED = st.recursive(
    LEAVES,
    lambda part: st.lists(part, max_size=2) | st.dictionaries(st.sampled_from("ab"), part),
    max_leaves=6,
)


def test_differences_name_every_field_by_its_dotted_key():
    first = {"a": {"b": 1, "c": [1, {"d": 2}]}, "only": "here", "same": 0}
    second = {"a": {"b": 2, "c": [1, {"d": 3}]}, "same": 0}
    expected = [("a.b", "1", "2"), ("a.c[1].d", "2", "3"), ("only", "'here'", "absent")]
    assert differing_fields(first, second) == expected


@settings(max_examples=200)
@given(NESTED, NESTED)
def test_two_values_differ_exactly_where_their_json_does(first, second):
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (differing_fields(first, second) == []) == same
    assert differing_fields(first, json.loads(json.dumps(first))) == []


def test_the_nearest_store_is_the_one_with_the_fewest_other_fields(tmp_path):
    far = {"data": {"digest": "other", "seed": 3}, "augment": [], "teacher": {"weights": "v"}}
    near = {**CAUSES, "data": {"digest": "d", "seed": 1}}
    for causes in (far, near):
        built(tmp_path, views=(), causes=causes)
    store = a_store(tmp_path)
    for other in (a_store(tmp_path, tensor="layer2"), replace(store, split="val")):  # however similar
        other.begin((3, 2, 2), EXAMINED, {})
    damaged = built(tmp_path, views=(), causes={**CAUSES, "augment": []})
    (damaged.folder / "manifest.json").write_text("{")
    folder = a_store(tmp_path, causes=near).folder.name
    expected = f"resnet56/{folder} differs in data.seed (got 0, stored 1)"
    assert nearest_store(store.fingerprint, store.folder) == expected


def test_a_copy_of_a_store_is_not_a_neighbour_that_differs(tmp_path):
    store = built(tmp_path)
    shutil.copytree(store.folder, store.folder.with_name(f"{store.folder.name}.bak"))
    assert nearest_store(store.fingerprint, store.folder) is None


def test_different_names_are_different_parts_of_a_path():
    names = ["a-b", "a_b", "a/b", "a b", "a%2Fb", "a.b", "ab", "ü", "u"]
    parts = {path_part(name) for name in names}
    assert len(parts) == len(names)
    assert not any(set("/-") & set(part) for part in parts)
    assert path_part("layer3.8") == "layer3.8"


def test_stores_are_found_below_a_folder_damaged_ones_too(tmp_path):
    good, bad = built(tmp_path), built(tmp_path, tensor="layer2")
    (bad.folder / "manifest.json").write_text("{")
    found = {stored.folder: stored for stored in stores_below(tmp_path)}
    assert found[bad.folder].manifest is None
    assert found[good.folder].manifest.tensor == "layer3"
    assert recorded_views(good.folder) == [1, 2]


def test_a_damaged_note_of_use_is_skipped(tmp_path):
    store = built(tmp_path)
    store.note_use(tmp_path / "run", "command")
    (store.folder / "used_by" / "0.json").write_text("[")
    (store.folder / "used_by" / "1.json").write_text("[]")
    assert [use.command for use in stores_below(tmp_path)[0].users()] == ["command"]
