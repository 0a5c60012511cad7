"""Cross-entropy with the labels."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Labels, Step


class CrossEntropy(LossTerm):
    """Cross-entropy of the student's logits at temperature 1 with the labels.

    ``mean_b -log softmax(z_b)[y_b]``, in nats. Where mixup has blended the images, each label counts as
    much as its image does.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            problem = f"label_smoothing is wrong (got {label_smoothing}, expected at least 0 and below 1)."
            raise UserError(problem, fix="set loss.ce.label_smoothing=0.1")
        self.label_smoothing = label_smoothing

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's mean cross-entropy, a scalar."""
        own = self.cross_entropy(step.student.logits, step.labels)
        if step.mixed is None:
            return own
        share = step.mixed.share
        return share * own + (1 - share) * self.cross_entropy(step.student.logits, step.mixed.labels)

    def cross_entropy(self, logits: Float[Tensor, "B K"], labels: Labels) -> Float[Tensor, ""]:
        """Return the mean cross-entropy with one label per sample, a scalar."""
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
