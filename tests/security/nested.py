"""Nested plain values: their places, and others to put there."""

import copy

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=25, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

NUMBERS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats()


def nested(*told, keys=()):
    """Any JSON, with some texts and keys more often than chance would draw them."""
    leaves = NUMBERS | st.text(max_size=12) | st.sampled_from(told)
    names = st.text(max_size=6) | st.sampled_from(["x", *keys])
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    )


def places(tree, path=()):
    """Where values lie, with those that hold others; the first is the whole."""
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def with_value(tree, path, value):
    """A copy with another value at one place."""
    return changed(tree, path, lambda node, key: node.__setitem__(key, value)) if path else value


def without(tree, path):
    """A copy that lacks one place."""
    return changed(tree, path, lambda node, key: node.__delitem__(key))


def changed(tree, path, change):
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    change(node, path[-1])
    return tree
