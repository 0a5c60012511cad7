"""A student that can be asked, whether it was exported or still lies in its run's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.results.checkpoints import Which
from amtml_pl.results.evaluation.images import classes_of
from amtml_pl.results.export.formats.kinds import open_exported
from amtml_pl.results.export.formats.student import Forward
from amtml_pl.results.export.record import refuse_changed
from amtml_pl.results.run import load_run


class OpenedModel:
    """A student, what its outputs mean, and the images that it takes.

    Args:
        place: an exported file, or the folder of a completed run.
        checkpoint: of a run, which epoch's weights; no other place has a choice.
        trust: whether a file may be opened that could run code of its author's.

    Attributes:
        classes: the K class names, in the order of the logits.
        image_size: height and width of the images, in pixels.

    Raises:
        UserError: if there is no such place, or it cannot be opened.
    """

    def __init__(self, place: Path, checkpoint: Which = "best", *, trust: bool = False) -> None:
        self.place = place
        self.forward: Forward
        if place.is_dir():
            run = load_run(place)
            student = run.student(checkpoint)
            self.forward = lambda images: student(images).logits
            about = run.config.dataset
            self.classes = classes_of(run) or tuple(map(str, range(about.num_classes)))
            self.image_size = int(about.image_size)
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

    def probabilities(self, images: Tensor) -> Tensor:
        """The probability of each class.

        Args:
            images: ``(B, 3, H, W)`` in [0, 1].

        Returns:
            ``(B, K)`` in float32, rows sum to 1.

        Raises:
            UserError: if what was opened gives something else than one logit per class, or no number.
        """
        try:
            with torch.inference_mode():
                logits = self.forward(images)
        except Exception as error:  # a stranger's graph fails in whatever way its runtime has
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{self.place} cannot be run: {lines[0]:.300}.",
                fix="write it again: python -m amtml_pl.export",
            ) from error
        expected = (len(images), len(self.classes))
        if tuple(logits.shape) != expected:
            raise UserError(
                f"{self.place} gives outputs of shape {tuple(logits.shape)}, expected {expected}.",
                fix="write it again: python -m amtml_pl.export",
            )
        if not logits.isfinite().all():
            raise UserError(
                f"{self.place} gives logits that are no finite numbers.",
                fix="model= of another run; or write it again: python -m amtml_pl.export",
            )
        return logits.float().softmax(dim=1)
