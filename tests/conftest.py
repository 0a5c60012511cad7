"""Checks every tensor shape and argument type of the package at run time, and keeps tests off the network."""

import json
import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
checked = install_import_hook("amtml_pl", "typing_check.checked")
checked.__enter__()  # for the whole session: the package is imported by the test modules

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture
def golden():
    """A golden case by name: ``(inputs, outputs)`` with every list as a float64 (or int64) tensor."""

    def case(name: str) -> tuple[dict, dict]:
        found = GOLDEN["cases"][name]
        return {k: tensor(v) for k, v in found["inputs"].items()}, {
            k: tensor(v) for k, v in found["outputs"].items()
        }

    return case


def tensor(value):
    if not isinstance(value, list):
        return value
    made = torch.tensor(value, dtype=torch.float64)
    return made.long() if is_whole(value) else made


def is_whole(value) -> bool:
    return all(is_whole(v) for v in value) if isinstance(value, list) else isinstance(value, int)
