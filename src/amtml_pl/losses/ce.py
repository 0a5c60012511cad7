"""Cross-entropy with the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.term import ClassWeights, LossTerm
from amtml_pl.types import Labels, Step, TensorShapes


class CrossEntropy(LossTerm):
    """Cross-entropy of the student's logits at temperature 1 with the labels.

    ``mean_b -log softmax(z_b)[y_b]``, in nats. Where mixup has blended the images, each label counts as
    much as its image does.

    With class weights w, it is torch's weighted mean ``sum_b w[y_b] l_b / sum_b w[y_b]``.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes, in [0, 1).
        class_weights: K numbers above 0; or ``balanced``: N / (C n_c) for a class with n_c of N training
            images, C being the number of classes with images. None weighs all classes equally.
    """

    weights: Tensor | None

    def __init__(self, label_smoothing: float = 0.0, class_weights: ClassWeights | None = None) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            problem = f"label_smoothing is wrong (got {label_smoothing}, expected at least 0 and below 1)."
            raise UserError(problem, fix="set loss.ce.label_smoothing=0.1")
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.register_buffer("weights", None, persistent=False)  # no checkpoint needs them

    def build(self, shapes: TensorShapes) -> None:
        """Check that there is one weight per class."""
        if self.class_weights is None or self.class_weights == "balanced":
            return
        if len(self.class_weights) != shapes.classes:
            problem = f"(got {len(self.class_weights)}, expected {shapes.classes})."
            raise UserError(
                f"loss.ce.class_weights has not one weight per class {problem}",
                fix="loss.ce.class_weights=balanced",
            )
        self.weights = torch.tensor(self.class_weights, dtype=torch.float32)

    def set_class_counts(self, counts: Int64[Tensor, " K"]) -> None:
        """Set balanced weights; a class without training images gets 0."""
        if self.class_weights == "balanced":
            even = counts.sum() / (counts > 0).sum()
            self.weights = torch.where(counts > 0, even / counts.clamp_min(1), 0.0)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's mean cross-entropy, a scalar."""
        own = self.cross_entropy(step.student.logits, step.labels)
        if step.mixed is None:
            return own
        share = step.mixed.share
        return share * own + (1 - share) * self.cross_entropy(step.student.logits, step.mixed.labels)

    def cross_entropy(self, logits: Float[Tensor, "B K"], labels: Labels) -> Float[Tensor, ""]:
        """Return the mean cross-entropy with one label per sample, a scalar."""
        return F.cross_entropy(logits, labels, weight=self.weights, label_smoothing=self.label_smoothing)
