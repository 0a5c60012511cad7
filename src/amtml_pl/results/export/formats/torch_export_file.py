"""``torch.export`` files: torch's own graph, with the card in its zip archive."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import torch

from amtml_pl.results.export.formats.model_card import ModelCard, foreign, opening
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits, example

CARD = "amtml_pl.json"
MOST_BYTES = 16 << 20


def card_of(file: Path) -> ModelCard:
    """Return the card of an archive; nothing else in it is read.

    Raises:
        UserError: if there is none.
    """
    with opening(file, "torch_export"), zipfile.ZipFile(file) as archive:
        found = [member for member in archive.infolist() if member.filename.endswith(f"/extra/{CARD}")]
        if len(found) != 1 or found[0].file_size > MOST_BYTES:
            raise foreign(file, f"there is no extra file {CARD}")
        texts = json.loads(archive.read(found[0]))
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise foreign(file, f"{CARD} holds no texts by name")
    return ModelCard.read(texts, file)


def is_archive(file: Path) -> bool:
    """Return whether a zip archive is torch.export's, which contains models."""
    with opening(file, "torch_export"), zipfile.ZipFile(file) as archive:
        return any(name.partition("/")[2].startswith("models/") for name in archive.namelist())


def write(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Write the graph with dynamic batch, the card as an extra file in it."""
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
    """Open a trusted file: torch unpickles parts of it and evaluates its expressions.

    Raises:
        UserError: if the file is damaged, or not an exported student.
    """
    card = card_of(file)
    with opening(file, "torch_export"):
        return OpenedStudent(card, torch.export.load(file).module())
