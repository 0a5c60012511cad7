"""What a student sees in image files, and the table of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amtml_pl.data.image_files import read_batches
from amtml_pl.results.opened_model import OpenedModel
from amtml_pl.system.files import replacing


@dataclass(frozen=True)
class Prediction:
    """What a student sees in an image.

    Attributes:
        file: as it was named.
        classes: the likeliest ones with their probabilities, the likeliest first.
    """

    file: Path
    classes: tuple[tuple[str, float], ...]


def predict(model: OpenedModel, files: Sequence[Path], top: int = 1) -> list[Prediction]:
    """Asks a student about image files.

    Args:
        model: the student.
        files: at least one, each once.
        top: how many classes are wanted of each; at most there are.

    Raises:
        UserError: if an image cannot be read, or the student cannot be run.
    """
    found: list[Prediction] = []
    for images in read_batches(files, model.image_size):
        values, classes = model.probabilities(images).topk(min(top, len(model.classes)), dim=1)
        for row, names in zip(values.tolist(), classes.tolist(), strict=True):
            likeliest = tuple((model.classes[name], value) for name, value in zip(names, row, strict=True))
            found.append(Prediction(files[len(found)], likeliest))
    return found


def write_table(file: Path, predictions: Sequence[Prediction]) -> None:
    """Replaces a CSV file: ``file,class,probability,class_2,probability_2,...``, a row for each image.

    Raises:
        UserError: if it cannot be written; the one before stays.
    """
    ranks = range(1, len(predictions[0].classes) + 1)
    endings = ["" if rank == 1 else f"_{rank}" for rank in ranks]
    header = ["file", *(f"{what}{ending}" for ending in endings for what in ("class", "probability"))]
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    for prediction in predictions:
        lines.writerow([prediction.file, *(cell for pair in prediction.classes for cell in pair)])
    with replacing(file) as temporary:  # a name of other bytes than UTF-8 is written as it is
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
