"""``torch.export``: torch's own graph, and the card in its zip archive."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch

from amtml_pl.errors import UserError
from amtml_pl.results.export.formats.model_card import ModelCard, foreign
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits, example

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


def write(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Writes the graph with dynamic batch, the card as an extra file in it."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(student, (example(card.image_size),), dynamic_shapes=(batch,))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths and lines of the user's code
    content = BytesIO()
    torch.export.save(program, content, extra_files={CARD: json.dumps(card.texts(), indent=2)})
    file.write_bytes(content.getvalue())  # where the disk is full, torch's own writer would end the process


def open_file(file: Path) -> OpenedStudent:
    """A student from a file that is trusted: torch unpickles parts of it and evaluates its expressions.

    Raises:
        UserError: if the file is damaged, or no exported student.
    """
    card = card_of(file)
    with opening(file):
        return OpenedStudent(card, torch.export.load(file).module())
