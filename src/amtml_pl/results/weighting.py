"""Apply a finished run's own weighting to images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.config.allowed_targets import located
from amtml_pl.config.build import build_object
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.types import TeacherOutputs
from amtml_pl.weighting.scheme import Weighting

NOT_HERE = "The weights of the teachers for single images cannot be computed:"


@dataclass(frozen=True)
class OwnWeighting:
    """A run's weighting at a checkpoint, and the student with the taps that it reads."""

    scheme: Weighting
    student: TappedNetwork

    def weights(
        self,
        batches: Iterable[tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]],
        outputs: TeacherOutputs,
        labels: Int64[Tensor, " N"],
    ) -> Float[Tensor, "N M"]:
        """Return the teachers' weights for every image.

        Args:
            batches: the images in order, with their positions.
            outputs: the teachers' outputs for all images.
            labels: of all images.

        Raises:
            UserError: if the weighting reads a hint that is not among the outputs.
        """
        device, found = self.student.mean.device, []
        scheme = self.scheme.to(device)
        with torch.inference_mode():
            for images, index in batches:
                student = self.student(images.to(device))
                teachers = outputs.map(lambda tensor, rows=index: tensor[rows].float().to(device))  # type: ignore[misc]
                try:
                    found.append(scheme(student, teachers, labels[index].to(device)).cpu())
                except KeyError as error:
                    raise UserError(
                        f"The weighting {type(scheme).__name__} reads the teachers' feature map {error}, "
                        "which is not cached for these images.",
                        fix="use the split train, for which feature maps are cached",
                    ) from error
        return torch.cat(found)


def own_scheme(config: Mapping[str, Any], teachers: Sequence[str]) -> Weighting:
    """Return a run's weighting, untrained.

    Raises:
        UserError: if its weights cannot be computed from single samples.
    """
    if not teachers:
        raise UserError(f"{NOT_HERE} the run has no teachers.")
    settings = config.get("weighting")
    if settings is None:
        raise UserError(f"{NOT_HERE} the run has weighting=null.")
    loop = located(config["loop"]["_target_"])
    if not getattr(loop, "uses_weighting_unchanged", False):
        raise UserError(
            f"{NOT_HERE} the training loop {loop.__name__} computes these weights only during training.",
            fix="use the mean weights of each epoch: load_run(RUN).teacher_weights()",
        )
    scheme = build_object(settings)
    if not isinstance(scheme, Weighting):
        raise UserError(f"{type(scheme).__name__} is not a Weighting (got weighting={settings!s:.200}).")
    if scheme.weighs_batches:
        raise UserError(
            f"{NOT_HERE} the weighting {type(scheme).__name__} computes one set of weights per batch.",
            fix="use the mean weights of each epoch: load_run(RUN).teacher_weights()",
        )
    return scheme
