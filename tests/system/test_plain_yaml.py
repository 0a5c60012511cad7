"""The YAML of a run folder is read as plain values, unchanged, and as nothing else."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from amtml_pl.system.plain_yaml import read_plain_yaml

TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12).filter(
    lambda text: "${" not in text and text != "???"
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
    | st.sampled_from(["1e-3", "2026-11-29", "yes", "0x10", "null", "~", "=", "<<", "1_0", "- x", "#"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(bool), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=40)
@given(tree=st.dictionaries(TEXT.filter(bool), VALUES, max_size=4))
def test_a_configuration_is_read_as_it_was_written(tmp_path_factory, tree):
    file = tmp_path_factory.mktemp("yaml") / "config.yaml"
    made = OmegaConf.create(tree, flags={"allow_objects": True})
    file.write_text(OmegaConf.to_yaml(made), encoding="utf-8")
    assert read_plain_yaml(file) == tree


REFUSED = {
    "an interpolation": ("a: {b: '${oc.env:HOME}'}", "a.b='${oc.env:HOME}' is an interpolation or missing"),
    "a missing value": ("a: '???'", "is an interpolation or missing"),
    "a null key": ("~: 1", "has the key null"),
    "an interpolation in a key": ("'${x}': 1", "is an interpolation"),
    "a tag": ("a: !!python/object/apply:os.system [true]", "line 1 has the tag"),
    "an anchor": ("a: &x 1", "line 1 has the anchor or alias x"),
    "a date": ("a: [2026-11-29]", "a[0] is a date, expected a string or a number"),
    "no text": ("a: \udcff", "utf-8"),
    "something open": ("a: [", "did not find expected node content"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "depth": ("[" * 200_000, "line 1 has more than 50 nested levels"),
    "length": (
        "a" * ((1 << 20) + 1),
        "the file is too large (got 1,048,577 bytes, expected at most 1,048,576",
    ),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_anything_but_plain_values_is_refused(tmp_path, text, reason):
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_plain_yaml(file)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a regular file"):
        read_plain_yaml(tmp_path)


def test_nested_aliases_are_refused_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    began = time.process_time()
    with pytest.raises(ValueError, match="anchor or alias"):
        read_plain_yaml(tmp_path / "config.yaml")
    assert time.process_time() - began < 60  # expanded they are 2 ** 60 values
