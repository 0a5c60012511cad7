"""Open a student from a file or a run, and classify image files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.data.image_files import read_batches
from amtml_pl.errors import UserError, first_line
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.results.export.formats import open_exported
from amtml_pl.results.export.record import refuse_changed
from amtml_pl.results.export.student import Forward
from amtml_pl.results.run import load_run
from amtml_pl.system.files import output

# An image, and its likeliest classes with their probabilities, the likeliest first.
Prediction: TypeAlias = tuple[Path, list[tuple[str, float]]]


class Predictor:
    """A student from a file or a run, ready to classify images.

    Args:
        place: an exported file, or the folder of a completed run.
        checkpoint: of a run, which epoch's weights; must be ``best`` for a file.

    Attributes:
        classes: the K class names, in the order of the logits.
        image_size: height and width of the images, in pixels.

    Raises:
        UserError: if the place does not exist, or cannot be opened.
    """

    def __init__(self, place: Path, checkpoint: CheckpointName = "best") -> None:
        self.place = place
        self.forward: Forward
        if place.is_dir():
            run = load_run(place)
            student = run.student(checkpoint)
            self.forward = lambda images: student(images).logits
            self.classes = run.record.dataset.classes
            self.image_size = run.config["dataset"]["image_size"]
        elif not place.exists():
            raise UserError(
                f"The model {place} does not exist.", fix="pass model=EXPORTED_FILE or model=RUN_FOLDER"
            )
        elif checkpoint != "best":
            raise UserError(
                f"checkpoint={checkpoint} needs a run folder, but the model {place} is an exported file.",
                fix="remove checkpoint=, or pass model=RUN_FOLDER",
            )
        else:
            refuse_changed(place)
            opened = open_exported(place)
            self.forward = opened.forward
            self.classes, self.image_size = opened.card.classes, opened.card.image_size

    def probabilities(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return float32 rows that sum to 1, for images in [0, 1].

        Raises:
            UserError: if the model does not return one finite logit per class.
        """
        anew = "pass another model=, or export the student again: python -m amtml_pl.export run=FOLDER"
        try:
            with torch.inference_mode():
                logits = self.forward(images)
        except Exception as error:  # a stranger's graph can raise anything
            what = f"The model {self.place} cannot be run: {first_line(error):.300}."
            raise UserError(what, fix=anew) from error
        if logits.shape != (expected := (len(images), len(self.classes))):
            got = f"got {tuple(logits.shape)}, expected {expected}"
            raise UserError(f"The model {self.place} returns logits of a wrong shape ({got}).", fix=anew)
        if not logits.isfinite().all():
            raise UserError(
                f"The model {self.place} returns logits that are NaN or infinite (expected finite logits).",
                fix="pass another model=, or train the run again with force=true",
            )
        return logits.float().softmax(dim=1)


def predict(model: Predictor, files: Sequence[Path], top: int = 1) -> list[Prediction]:
    """Return the likeliest classes of image files, in the order of the files.

    Args:
        model: the student.
        files: at least one, each once.
        top: how many classes to return for each.

    Raises:
        UserError: if an image cannot be read, or the student cannot be run.
    """
    found: list[list[tuple[str, float]]] = []
    for images in read_batches(files, model.image_size):
        values, classes = model.probabilities(images).topk(min(top, len(model.classes)), dim=1)
        for row, numbers in zip(values.tolist(), classes.tolist(), strict=True):
            found.append([*zip((model.classes[number] for number in numbers), row, strict=True)])
    return [*zip(files, found, strict=True)]


def write_table(file: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as CSV: ``file,class,probability,class_2,probability_2,...``.

    Raises:
        UserError: if it cannot be written; the old file stays.
    """
    endings = ["", *(f"_{rank}" for rank in range(2, len(predictions[0][1]) + 1))]
    header = ["file", *(f"{name}{ending}" for ending in endings for name in ("class", "probability"))]
    rows = [[image, *(cell for pair in classes for cell in pair)] for image, classes in predictions]
    # The bytes of a name that is not UTF-8 are written unchanged.
    with (
        output(file) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as lines,
    ):
        csv.writer(lines, lineterminator="\n").writerows([header, *rows])
