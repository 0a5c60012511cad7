"""A finished run's own weighting, asked again how it weighs the teachers for an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from omegaconf import DictConfig
from torch import Tensor

from amtml_pl.config.allowed_targets import located
from amtml_pl.config.build import build
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.checkpoint_file import refuse_other_network
from amtml_pl.types import TeacherOutputs, TensorShapes
from amtml_pl.weighting.scheme import Weighting


@dataclass(frozen=True)
class OwnWeighting:
    """A weighting as a checkpoint has it, and the student that it reads.

    Attributes:
        scheme: the weighting.
        student: in evaluation mode, with the taps that the weighting reads.
    """

    scheme: Weighting
    student: TappedNetwork

    def weights(
        self,
        batches: Iterable[tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]],
        outputs: TeacherOutputs,
        labels: Int64[Tensor, " N"],
    ) -> Float[Tensor, "N M"]:
        """The weights of the teachers for every image.

        Args:
            batches: the images in order, and which samples they are.
            outputs: of the teachers for all images.
            labels: of all images.

        Raises:
            UserError: if the weighting reads a hint that is not among the outputs.
        """
        device, found = self.student.mean.device, []
        scheme = self.scheme.to(device)
        with torch.inference_mode():
            for images, index in batches:
                student = self.student(images.to(device))
                taught = outputs.map(lambda tensor, rows=index: tensor[rows].float().to(device))  # type: ignore[misc]
                try:
                    found.append(scheme(student, taught, labels[index].to(device)).cpu())
                except KeyError as error:
                    raise UserError(
                        f"{type(scheme).__name__} reads {error}, which is not kept of these images."
                    ) from error
        return torch.cat(found)


def own_scheme(config: DictConfig, teachers: Sequence[str]) -> Weighting:
    """A run's weighting as its constructor leaves it.

    Raises:
        UserError: if it is not known from a sample alone how the run would weigh the teachers for it.
    """
    if not teachers:
        raise UserError("The run has no teachers to weigh.")
    settings: Any = config.get("weighting")
    if settings is None:
        raise UserError("The run has no weighting (weighting: null).")
    loop = located(config.loop["_target_"])
    if not getattr(loop, "asks_weighting_alone", False):
        raise UserError(f"The teachers' weights are made by {loop.__name__}, within its training step.")
    scheme = build(settings)
    if not isinstance(scheme, Weighting):
        raise UserError(f"{settings!s:.200} builds a {type(scheme).__name__}; expected a weighting.")
    if scheme.weighs_batches:
        raise UserError(
            f"{type(scheme).__name__} weighs the teachers for a batch as a whole, not for an image."
        )
    return scheme


def restored(
    scheme: Weighting,
    student: TappedNetwork,
    config: DictConfig,
    record: RunRecord,
    state: Mapping[str, Tensor],
    file: Path,
) -> OwnWeighting:
    """A weighting with what it had learned and heard of the teachers.

    Args:
        scheme: as `own_scheme` gives it; changed.
        student: with the taps that it reads.
        config: of the run.
        record: of the run.
        state: of the weighting, from a checkpoint.
        file: the checkpoint.

    Raises:
        UserError: if the state is of another weighting.
    """
    classes, features = tap_shapes(student, int(config.dataset.image_size))
    scheme.build(TensorShapes(classes=classes, teachers=tuple(record.teachers), student=features))
    refuse_other_network(state, scheme.state_dict(), file, f"{record.command} force=true")
    scheme.load_state_dict(dict(state))
    scheme.judge({name: record.metrics[f"teacher/{name}/val/acc"] for name in record.teachers})
    return OwnWeighting(scheme.requires_grad_(False).eval(), student)
