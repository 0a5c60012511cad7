"""The zip archives of ``torch.export`` and TorchScript: what kind one is, and the card in it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from amtml_pl.errors import UserError
from amtml_pl.results.export.formats.model_card import ModelCard, foreign

CARD = "amtml_pl.json"
MOST_BYTES = 16 << 20


def card_of(file: Path) -> ModelCard:
    """The card of an archive; nothing else in it is read.

    Raises:
        UserError: if there is none.
    """
    with opening(file), zipfile.ZipFile(file) as archive:
        found = [member for member in archive.infolist() if member.filename.endswith(f"/extra/{CARD}")]
        if len(found) != 1 or found[0].file_size > MOST_BYTES:
            raise foreign(file, f"there is no extra file {CARD}")
        texts = json.loads(archive.read(found[0]))
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise foreign(file, f"{CARD} holds no texts by name")
    return ModelCard.read(texts, file)


def member_names(file: Path) -> list[str]:
    """What lies in an archive, without the name of its top."""
    with opening(file), zipfile.ZipFile(file) as archive:
        return [name.partition("/")[2] for name in archive.namelist()]


def without_call_stacks(content: BytesIO) -> bytes:
    """A script without the calls that have led to each of its steps: paths and lines of the user's code."""
    kept = BytesIO()
    with zipfile.ZipFile(content) as archive, zipfile.ZipFile(kept, "w") as rewritten:
        for member in archive.infolist():
            if not member.filename.endswith(".debug_pkl"):
                rewritten.writestr(zipfile.ZipInfo(member.filename), archive.read(member))
    return kept.getvalue()


@contextmanager
def opening(file: Path) -> Iterator[None]:
    """Ends whatever damage makes the readers raise in one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged bytes make the readers fail in every possible way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{file} ({file.stat().st_size:,} bytes) cannot be opened: {reason:.200}.",
            fix="copy the file again, or write it again: python -m amtml_pl.export run=FOLDER",
        ) from error
