"""Nested plain values: their places, and other values to put there."""

import copy

from hypothesis import settings
from hypothesis import strategies as st

FUZZ = settings(max_examples=25)
NUMBERS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats()


def nested(*texts, keys=()):
    """Return a strategy of JSON values that draws some texts and keys more often."""
    leaves = NUMBERS | st.text(max_size=12) | st.sampled_from(texts)
    names = st.text(max_size=6) | st.sampled_from(["x", *keys])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    )


def places(tree, path=()):
    """Yield the place of every value, of mappings and lists too; the first is the whole."""
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def with_value(tree, path, value):
    """Return a copy with another value at one place."""
    whole = {"": copy.deepcopy(tree)}
    node = whole
    for key in ("", *path[:-1]) if path else ():
        node = node[key]
    node[path[-1] if path else ""] = value
    return whole[""]


def without(tree, path):
    """Return a copy that lacks one place."""
    whole = node = copy.deepcopy(tree)
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return whole
