"""TorchScript: a traced program for libtorch, deprecated in torch and still asked for."""

from __future__ import annotations

import json
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits, example
from amtml_pl.results.export.formats.torch_formats import CARD, card_of, opening, without_call_stacks

jit: Any = torch.jit  # without types


def write(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Writes the traced student, the card as an extra file in it.

    Traced and not scripted: a script takes no network apart from torch's own without changes to its code.
    """
    # That TorchScript is deprecated the user knows; whether a trace is right, the parity check finds out.
    with warnings.catch_warnings(action="ignore"):
        traced = jit.trace(student, example(card.image_size), check_trace=False)
        content = BytesIO()
        jit.save(traced, content, _extra_files={CARD: json.dumps(card.texts(), indent=2)})
    file.write_bytes(
        without_call_stacks(content)
    )  # where the disk is full, torch's own writer would end the process


def open_file(file: Path) -> OpenedStudent:
    """A student from a file that is trusted: a script may read and write files.

    Raises:
        UserError: if the file is damaged, or no exported student.
    """
    card = card_of(file)
    with opening(file), warnings.catch_warnings(action="ignore"):  # deprecated, as above
        return OpenedStudent(card, jit.load(str(file), map_location="cpu"))
