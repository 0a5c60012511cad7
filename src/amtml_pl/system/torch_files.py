"""Read files of ``torch.save`` without running their code or trusting their sizes."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


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
                raise ValueError("it is compressed, which torch.save never does")
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of {wrong:.80} in it is wrong")
    elif with_checksums:
        raise ValueError("it is cut off, or another kind of file")
    with warnings.catch_warnings(action="ignore"):  # torch raises for the same reasons just after
        return torch.load(path, map_location="cpu", weights_only=True)
