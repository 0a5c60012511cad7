"""Open a student from a file or a run, and classify image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.data.image_files import read_batches
from amtml_pl.errors import UserError
from amtml_pl.results.checkpoints import Which
from amtml_pl.results.export.formats.kinds import open_exported
from amtml_pl.results.export.formats.student import Forward
from amtml_pl.results.export.record import refuse_changed
from amtml_pl.results.run import load_run
from amtml_pl.system.files import output


class OpenedModel:
    """A student from a file or a run, ready to classify images.

    Args:
        place: an exported file, or the folder of a completed run.
        checkpoint: of a run, which epoch's weights; must be ``best`` for a file.
        trust: whether to open a file that could run its author's code.

    Attributes:
        classes: the K class names, in the order of the logits.
        image_size: height and width of the images, in pixels.

    Raises:
        UserError: if the place does not exist, or cannot be opened.
    """

    def __init__(self, place: Path, checkpoint: Which = "best", *, trust: bool = False) -> None:
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
                f"There is no model {place}.", fix="model=FILE or FOLDER, of an exported student or a run"
            )
        elif checkpoint != "best":
            raise UserError(
                f"checkpoint={checkpoint} is a choice of a run's folder; {place} is a file.",
                fix="model=FOLDER, or leave checkpoint= out",
            )
        else:
            refuse_changed(place)
            opened = open_exported(place, trust=trust)
            self.forward = opened.forward
            self.classes, self.image_size = opened.card.classes, opened.card.image_size

    def probabilities(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return the probability of each class.

        Args:
            images: in [0, 1].

        Returns:
            ``(B, K)`` in float32, rows sum to 1.

        Raises:
            UserError: if the model does not return one finite logit per class.
        """
        anew = "write it again: python -m amtml_pl.export"
        try:
            with torch.inference_mode():
                logits = self.forward(images)
        except Exception as error:  # a stranger's graph can raise anything
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{self.place} cannot be run: {lines[0]:.300}.", fix=anew) from error
        expected = (len(images), len(self.classes))
        if tuple(logits.shape) != expected:
            raise UserError(
                f"{self.place} gives outputs of shape {tuple(logits.shape)}, expected {expected}.", fix=anew
            )
        if not logits.isfinite().all():
            raise UserError(
                f"{self.place} gives logits that are no finite numbers.",
                fix=f"model= of another run; or {anew}",
            )
        return logits.float().softmax(dim=1)


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image with their probabilities, the likeliest first."""

    file: Path
    classes: tuple[tuple[str, float], ...]


def predict(model: OpenedModel, files: Sequence[Path], top: int = 1) -> list[Prediction]:
    """Return the likeliest classes of image files.

    Args:
        model: the student.
        files: at least one, each once.
        top: how many classes to return for each.

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
    """Write predictions as CSV: ``file,class,probability,class_2,probability_2,...``.

    Raises:
        UserError: if it cannot be written; the old file stays.
    """
    ranks = range(1, len(predictions[0].classes) + 1)
    endings = ["" if rank == 1 else f"_{rank}" for rank in ranks]
    header = ["file", *(f"{what}{ending}" for ending in endings for what in ("class", "probability"))]
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    for prediction in predictions:
        lines.writerow([prediction.file, *(cell for pair in prediction.classes for cell in pair)])
    with output(file) as temporary:  # a name of other bytes than UTF-8 is written as it is
        temporary.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape")
