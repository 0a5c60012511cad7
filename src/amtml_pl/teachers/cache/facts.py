"""What a manifest may say of a teacher besides what its outputs depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amtml_pl.system.json_file import are_numbers

NUMBERS = ("accuracy", "accuracy_reassigned", "images")
BY_NAME = ("accuracy_with", "gain_in_standard_errors")


def are_facts(value: object) -> bool:
    """Whether it maps names to facts, and those that others read are of the right type."""
    if not isinstance(value, Mapping) or not are_numbers(value.get("accuracy", {})):
        return False
    if not isinstance(value.get("weights_digest", ""), str):
        return False
    return "examination" not in value or is_examination(value["examination"])


def is_examination(value: Any) -> bool:  # noqa: ANN401
    """Whether it is what the examination of a teacher has found."""
    if not isinstance(value, Mapping) or not {*NUMBERS, *BY_NAME} <= value.keys():
        return False
    if not are_numbers({name: value[name] for name in NUMBERS}):
        return False
    # For all other statistics that were tried it says what they gained.
    return all(are_numbers(value[name]) for name in BY_NAME) and (
        value["accuracy_with"].keys() <= value["gain_in_standard_errors"].keys()
    )
