"""The formats of exported students: recognise, check and open their files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amtml_pl.errors import UserError
from amtml_pl.results.export import onnx_file, safetensors_file
from amtml_pl.results.export.card import FIX, ModelCard
from amtml_pl.results.export.student import OpenedStudent, StudentLogits


@dataclass(frozen=True)
class ExportFormat:
    """The functions of one format.

    Attributes:
        write: writes a student and its card to a file.
        open_file: opens such a file.
        read_card: reads the card of such a file; nothing else in the file is used.
        packages: those of the extra ``export`` that writing needs.
    """

    suffix: str
    write: Callable[[StudentLogits, ModelCard, Path], None]
    open_file: Callable[[Path], OpenedStudent]
    read_card: Callable[[Path], ModelCard]
    packages: tuple[str, ...] = ()


FORMATS: Mapping[str, ExportFormat] = {
    "onnx": ExportFormat(
        ".onnx", onnx_file.write_onnx, onnx_file.open_onnx, onnx_file.read_onnx_card, onnx_file.PACKAGES
    ),
    "safetensors": ExportFormat(
        ".safetensors",
        safetensors_file.write_safetensors,
        safetensors_file.open_safetensors,
        safetensors_file.read_safetensors_card,
    ),
}


def open_exported(file: Path) -> OpenedStudent:
    """Open a file of `amtml_pl.export`, written here or elsewhere.

    Raises:
        UserError: if it is another kind of file, damaged, or needs a package that is missing.
    """
    return FORMATS[format_of(file)].open_file(file)


def is_exported(file: Path, name: str) -> bool:
    """Return True if a file is an exported student of a format, without running it."""
    try:
        if format_of(file) != name:
            return False
        FORMATS[name].read_card(file)
    except UserError:
        return False
    return True


def format_of(file: Path) -> str:
    """Return a file's format by its content, or for ONNX by its suffix.

    Raises:
        UserError: if it has none of them, or cannot be read.
    """
    try:
        with file.open("rb") as content:
            head = content.read(9)
    except OSError as error:
        what = f"The file {file} cannot be read: {error.strerror}."
        raise UserError(what, fix=f"check its permissions: ls -l '{file}'") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return "safetensors"
    if zipfile.is_zipfile(file):
        raise UserError(
            f"The file {file} is not an exported student (got an archive of torch.save or torch.export).",
            fix="pass model=RUN_FOLDER with checkpoint=best or checkpoint=last",
        )
    if file.suffix == FORMATS["onnx"].suffix:
        return "onnx"
    raise UserError(f"The file {file} is not an exported student (expected ONNX or safetensors).", fix=FIX)
