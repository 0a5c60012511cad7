"""Teachers' outputs and weights over the training steps of an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.training.dashboard.weights_by_class import mean_weights_by_class
from amtml_pl.types import Mixture
from amtml_pl.weighting.known_classes import knows_label

Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Teaching:
    """Teachers' predictions and weights, one row per trained sample.

    Attributes:
        labels: ``(N,)``.
        named: ``(N, M)``, the class that each teacher finds most likely.
        student: ``(N,)``, the class that the student found most likely in its step.
        mixture: ``(N,)``, the class that the weighted teachers find most likely.
        weights: ``(N, M)``, rows sum to 1.
        knows: ``(N, M)``, True for a teacher that knows the label.
    """

    labels: Int64[Tensor, " N"]
    named: Int64[Tensor, "N M"]
    student: Int64[Tensor, " N"]
    mixture: Int64[Tensor, " N"]
    weights: Float[Tensor, "N M"]
    knows: Bool[Tensor, "N M"]

    @staticmethod
    def of(
        labels: Int64[Tensor, " B"],
        teachers: Float[Tensor, "B M K"],
        weights: Float[Tensor, "B M"],
        student: Float[Tensor, "B K"],
        temperature: float,
        mixture: Mixture = "probabilities",
    ) -> Teaching:
        """Return a step's rows, on its device."""
        mixed = integrated_soft_targets(teachers, weights, temperature, mixture)
        return Teaching(
            labels=labels,
            named=teachers.argmax(dim=2),
            student=student.argmax(dim=1),
            mixture=mixed.argmax(dim=1),
            weights=weights,
            knows=knows_label(teachers, labels),
        )

    def scalars(self, teachers: tuple[str, ...]) -> dict[str, float]:
        """Return the values of the curves, by tag.

        Per teacher: how often it names the label and the student's class, and its part of the weights'
        entropy (the mean of −w ln w). Of the ensemble: how often its mixture names them.
        """
        right = (self.named == self.labels[:, None]).double().mean(dim=0).tolist()
        agreed = (self.named == self.student[:, None]).double().mean(dim=0).tolist()
        entropy = torch.special.entr(self.weights.double()).mean(dim=0).tolist()
        found = {"ensemble/train/acc": float((self.mixture == self.labels).double().mean())}
        found["ensemble/agreement_student"] = float((self.mixture == self.student).double().mean())
        for name, is_right, agrees, spread in zip(teachers, right, agreed, entropy, strict=True):
            found[f"teacher/{name}/agreement_label"] = is_right
            found[f"teacher/{name}/agreement_student"] = agrees
            found[f"teacher/{name}/weight_entropy"] = spread
        return found

    def known_weights(self, classes: Sequence[str]) -> dict[str, float]:
        """Return the weight on teachers that know each class; empty without specialists."""
        if bool(self.knows.all()):
            return {}
        known = (self.weights.double() * self.knows).sum(dim=1, keepdim=True)
        means = mean_weights_by_class(known, self.labels, len(classes))[:, 0].tolist()
        pairs = zip(classes, means, strict=True)
        return {f"ensemble/weight_known/{name}": mean for name, mean in pairs if not math.isnan(mean)}


def concatenated(parts: Sequence[Rows], device: torch.device | str = "cpu") -> Rows:
    """Concatenate the fields of dataclasses of tensors, on a device, in float32."""

    def moved(tensor: Tensor) -> Tensor:
        found = tensor.detach().to(device)
        return found.float() if found.is_floating_point() else found

    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*(torch.cat([moved(part) for part in column]) for column in columns))
