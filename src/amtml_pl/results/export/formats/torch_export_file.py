"""``torch.export``: torch's own graph with its weights, for torch without this package."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch

from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits, example
from amtml_pl.results.export.formats.torch_formats import CARD, card_of, opening


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
