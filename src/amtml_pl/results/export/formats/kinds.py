"""The kinds of exported files, and how to recognise them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amtml_pl.errors import UserError
from amtml_pl.results.export.formats import onnx_file, safetensors_file, torch_export_file
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits
from amtml_pl.system.optional_packages import imported


@dataclass(frozen=True)
class Kind:
    """One kind of exported file.

    Attributes:
        open_file: opens a file of `write`; for an unsafe kind, only if the file is trusted.
        card_of: reads the card of such a file; nothing else in the file is used.
        unsafe: the danger of opening a stranger's file; empty if it runs no code.
        packages: those of the extra ``export`` that it needs.
    """

    suffix: str
    write: Callable[[StudentLogits, ModelCard, Path], None]
    open_file: Callable[[Path], OpenedStudent]
    card_of: Callable[[Path], ModelCard]
    unsafe: str = ""
    packages: tuple[str, ...] = ()

    def refuse_missing_packages(self) -> None:
        """Raise a UserError that names the first package that is not installed."""
        for package in self.packages:
            imported(package, extra="export")


KINDS: Mapping[str, Kind] = {
    "onnx": Kind(
        ".onnx", onnx_file.write, onnx_file.open_file, onnx_file.card_of, packages=onnx_file.PACKAGES
    ),
    "torch_export": Kind(
        ".pt2",
        torch_export_file.write,
        torch_export_file.open_file,
        torch_export_file.card_of,
        unsafe="torch unpickles parts of such a file and evaluates the expressions in it as Python",
    ),
    "safetensors": Kind(
        ".safetensors", safetensors_file.write, safetensors_file.open_file, safetensors_file.card_of
    ),
}


def open_exported(file: Path, *, trust: bool) -> OpenedStudent:
    """Open an exported student of any kind.

    Args:
        file: written by `amtml_pl.export`, here or elsewhere.
        trust: whether to open a file that could run its author's code.

    Raises:
        UserError: if it is another kind of file, damaged, or not trusted.
    """
    kind = KINDS[kind_of(file)]
    if kind.unsafe and not trust:
        raise UserError(
            f"{file} is not opened: {kind.unsafe}.",
            fix="trust=true, if you know who wrote it; or take the student as ONNX or safetensors, which run "
            "nothing: python -m amtml_pl.export run=FOLDER format=onnx",
        )
    kind.refuse_missing_packages()
    return kind.open_file(file)


def is_exported(file: Path, kind: str) -> bool:
    """Return whether a file is an exported student of a kind; run nothing in it.

    Raises:
        UserError: if a package for reading it is missing.
    """
    KINDS[kind].refuse_missing_packages()
    try:
        if kind_of(file) != kind:
            return False
        KINDS[kind].card_of(file)
    except UserError:
        return False
    return True


def kind_of(file: Path) -> str:
    """Return a file's kind by its content, or for ONNX by its name.

    Raises:
        UserError: if it is none of them, or cannot be read.
    """
    try:
        with file.open("rb") as content:
            head = content.read(9)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.", fix="model=FILE or FOLDER") from error
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return "safetensors"
    if zipfile.is_zipfile(file):
        if torch_export_file.is_archive(file):
            return "torch_export"
        raise UserError(
            f"{file} is not an exported student: torch.save, TorchScript or another archive wrote it.",
            fix="model=FOLDER of the run that a checkpoint belongs to, with checkpoint=best or last",
        )
    if file.suffix == KINDS["onnx"].suffix:
        return "onnx"
    raise UserError(
        f"{file} is not an exported student: expected ONNX, torch.export or safetensors.",
        fix="model=FILE that python -m amtml_pl.export run=FOLDER writes, or model=FOLDER of the run",
    )
