"""Files that ``torch.save`` wrote, read without running code and without believing their sizes."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


def read_torch_file(path: Path, *, with_checksums: bool = False) -> Any:
    """What a file holds: tensors, on the CPU, and plain containers.

    torch itself compares no checksum, so that a flipped bit would be a wrong weight; and it unpacks what is
    compressed, which ``torch.save`` never does, whatever that grows to.

    Args:
        path: the file.
        with_checksums: whether to refuse the forms of older versions of torch, which have none.

    Raises:
        OSError: if it may not be read.
        ValueError: if a checksum is wrong or lacking, or something in the file is compressed.
        Exception: whatever torch raises at damaged bytes, or at a file that asks for more than tensors.
    """
    with path.open("rb"):  # or what may not be read would be said to be no archive
        pass
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, which torch.save never does")
            if wrong := archive.testzip():
                raise ValueError(f"the checksum of {wrong:.80} in it is wrong")
    elif with_checksums:
        raise ValueError("it is cut off, or another kind of file")
    with warnings.catch_warnings(action="ignore"):  # what torch warns of here, it refuses just after
        return torch.load(path, map_location="cpu", weights_only=True)
