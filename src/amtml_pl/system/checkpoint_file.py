"""Our own checkpoints, read as if somebody else had written them: run folders are copied and passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.system.torch_files import read_torch_file

FIX = "force=true with the same command: the run starts over"


def read_checkpoint(
    file: Path, network: Mapping[str, Tensor] | None = None, *, fix: str = FIX
) -> dict[str, Any]:
    """A whole checkpoint of Lightning's form, whose checksums are right; nothing in it is run.

    Args:
        file: ``last.ckpt`` or ``best.ckpt``.
        network: the ``state_dict`` that it should fit; None does not compare.
        fix: what brings another one.

    Raises:
        UserError: if it is missing, cut off, changed, no checkpoint or another network's, or would run code.
    """
    if not file.is_file():
        raise UserError(f"There is no checkpoint {file}.", fix=fix)
    try:
        found = read_torch_file(file, with_checksums=True)
    except OSError as error:
        raise UserError(
            f"The checkpoint {file} cannot be read: {error.strerror or error}. It may be whole.",
            fix=f"see to who may read it: ls -l {file.parent}",
        ) from error
    except Exception as error:  # damaged bytes make the readers fail in every possible way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The checkpoint {file} ({file.stat().st_size:,} bytes) cannot be read: {reason:.200}. "
            "Nothing in it was run.",
            fix=fix,
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"The file {file} is no checkpoint: it holds a {type(found).__name__}.", fix=fix)
    if wrong := [key for key, is_right in FIELDS.items() if not is_right(found.get(key))]:
        raise UserError(
            f"The file {file} is no checkpoint of a run: {', '.join(wrong)} in it is missing, or of "
            "another type.",
            fix=fix,
        )
    if network is not None:
        refuse_other_network(found["state_dict"], network, file, fix)
    return found


def refuse_other_network(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path, fix: str
) -> None:
    """Refuses tensors that are not those of a network, by name and shape.

    Args:
        given: what a file holds.
        expected: what the network has.
        file: named in the message.
        fix: what brings another one.

    Raises:
        UserError: with how many there are, and the first.
    """
    here = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    there = {name: tuple(tensor.shape) for name, tensor in given.items()}
    if wrong := [name for name in [*here, *there] if here.get(name) != there.get(name)]:
        first = wrong[0]
        raise UserError(
            f"The file {file} is of another network: {len(set(wrong))} tensors differ, the first is "
            f"{first:.80}: {there.get(first, 'absent')}, expected {here.get(first, 'none')}.",
            fix=fix,
        )


def is_count(value: object) -> bool:
    """Whether it is a whole number, 0 or more."""
    return type(value) is int and value >= 0


def are_tensors(value: object) -> bool:
    """Whether it maps names to tensors."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "pytorch-lightning_version": lambda value: isinstance(value, str),
    "epoch": is_count,
    "global_step": is_count,
    "state_dict": are_tensors,
    # What a checkpoint of weights alone has not; where it is, Lightning resumes from it.
    "loops": lambda value: value is None or isinstance(value, dict),
    "optimizer_states": lambda value: value is None or are_mappings(value),
    "lr_schedulers": lambda value: value is None or are_mappings(value),
}


def are_mappings(value: object) -> bool:
    """Whether it is a list of mappings."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
