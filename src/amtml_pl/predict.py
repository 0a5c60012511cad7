"""``python -m amtml_pl.predict model=FILE_OR_RUN images=...``: what a student sees in image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.markup import escape

from amtml_pl.config import check_command, plain
from amtml_pl.config_files import config_directory
from amtml_pl.entry_point import console, progress, reporting, start
from amtml_pl.errors import UserError
from amtml_pl.image_files import named_images, read_batches
from amtml_pl.opened_model import OpenedModel
from amtml_pl.output_file import refuse_unwritable, replacing
from amtml_pl.schema import PREDICT


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="predict")
def run(config: DictConfig) -> None:
    """Prints the likeliest classes of every image, and writes them where it is asked to."""
    progress.begun = True
    with reporting("amtml_pl.predict", debug=config.get("debug", False)):
        asked: Any = dict(config.items())
        check_command(asked, PREDICT)
        asked = plain(asked)
        for key, what in (("model", "model=FILE or FOLDER"), ("images", "images=FOLDER")):
            if not asked[key]:
                raise UserError(f"There is no {key.removesuffix('s')} to predict with.", fix=what)
        words = [asked["images"]] if isinstance(asked["images"], str) else asked["images"]
        table = None if asked["out"] is None else Path(asked["out"]).expanduser().resolve()
        if table is not None:
            refuse_unwritable(table)
        files = named_images(words)
        model = OpenedModel(Path(asked["model"]).expanduser(), asked["checkpoint"], trust=asked["trust"])
        found = predict(model, files, asked["top"])
        width = max(len(str(prediction.file)) for prediction in found)
        for prediction in found:
            said = "  ".join(f"{name} {value:.4f}" for name, value in prediction.classes)
            console.print(escape(f"{prediction.file!s:{width}}  {said}"))
        if table is not None:
            write_table(table, found)
            console.print(f"Written to {escape(str(table))}")


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
    with replacing(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
