"""Read files of ``torch.save`` safely, as run folders and weights may come from other people."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from amtml_pl.errors import UserError, first_line
from amtml_pl.system.records import Count, reasons

FIX = "repeat the command with force=true, which starts the run again"


class LightningCheckpoint(BaseModel):
    """The fields that Lightning reads; a file of weights alone lacks the last three."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    version: str = Field(validation_alias="pytorch-lightning_version")
    epoch: Count
    global_step: Count
    state_dict: dict[str, Tensor]
    loops: dict[Any, Any] | None = None
    optimizer_states: list[dict[Any, Any]] | None = None
    lr_schedulers: list[dict[Any, Any]] | None = None


def read_torch_file(path: Path, *, with_checksums: bool = False) -> Any:
    """Return the tensors, on the CPU, and plain containers that a file holds.

    torch itself compares no checksum, so that a flipped bit would be a wrong weight; and it unpacks
    compressed data, which ``torch.save`` never writes, to any size.

    Args:
        path: a file of ``torch.save``.
        with_checksums: refuse the formats of older versions of torch, which have none.

    Raises:
        OSError: if it cannot be read.
        ValueError: if a checksum is wrong or missing, or a part is compressed.
        Exception: of any kind, from torch, for damaged bytes or a file that holds more than tensors.
    """
    with path.open("rb"):  # without read access is_zipfile would return False
        pass
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("the file is compressed, which torch.save never does")
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of the part {wrong:.80} is wrong")
    elif with_checksums:
        raise ValueError("the file is cut off, or is not a torch file")
    with warnings.catch_warnings(action="ignore"):  # torch raises for the same reasons just after
        return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(
    file: Path, network: Mapping[str, Tensor] | None = None, *, fix: str = FIX
) -> dict[str, Any]:
    """Return a checkpoint in Lightning's format after checking it, without running its code.

    Args:
        file: ``last.ckpt`` or ``best.ckpt``.
        network: the ``state_dict`` that it should fit; None does not compare.
        fix: how to get another checkpoint, for the error message.

    Raises:
        UserError: if it is missing, damaged, not a checkpoint, of another network, or would run code.
    """
    if not file.is_file():
        raise UserError(f"The checkpoint {file} does not exist.", fix=fix)
    try:
        found: dict[str, Any] = read_torch_file(file, with_checksums=True)
        LightningCheckpoint.model_validate(found)
    except OSError as error:
        raise UserError(
            f"The checkpoint {file} cannot be read: {error.strerror or error}.",
            fix=f"ask the file's owner for read access (ls -l '{file.parent}' shows the owner)",
        ) from error
    except ValidationError as error:
        raise UserError(f"{file} is not the checkpoint of a run: {reasons(error)}.", fix=fix) from error
    except Exception as error:  # damaged bytes make the readers fail in every possible way
        raise UserError(
            f"The checkpoint {file} ({file.stat().st_size:,} bytes) cannot be read: "
            f"{first_line(error):.200}. No code in the file was executed.",
            fix=fix,
        ) from error
    if network is not None:
        refuse_other_network(found["state_dict"], network, file, fix)
    return found


def refuse_other_network(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path, fix: str
) -> None:
    """Raise a UserError if a file's tensors differ from a network's by name or shape."""
    if names := [*chain(*mismatched_tensors(given, expected).values())]:
        there, here = (
            tuple(of[names[0]].shape) if names[0] in of else "no tensor" for of in (given, expected)
        )
        raise UserError(
            f"The file {file} does not fit the network: {len(names)} tensors differ (the first is "
            f"{names[0]:.80}: got {there}, expected {here}).",
            fix=fix,
        )


def mismatched_tensors(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of tensors that do not fit a network, by kind of mismatch."""
    shared = [name for name in expected if name in given]
    return {
        "missing": [name for name in expected if name not in given],
        "not expected": [name for name in given if name not in expected],
        "of another shape": [name for name in shared if given[name].shape != expected[name].shape],
    }
