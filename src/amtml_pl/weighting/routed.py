"""Routing: one teacher per sample, chosen by the label's class or by who is right."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.known_classes import knows_label
from amtml_pl.weighting.likelihood import log_likelihoods
from amtml_pl.weighting.scheme import Weighting


def best_teacher_by_class(logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> Int64[Tensor, " K"]:
    """Return per class the most accurate teacher on held-out images, (K,).

    Of equally accurate teachers, the one with the higher mean probability of the class is taken.

    Args:
        logits: of the teachers, not softened.
        labels: in [0, K).
    """
    N, _, K = logits.shape
    members = F.one_hot(labels, K).double()
    right = (logits.argmax(dim=2) == labels[:, None]).double()
    likelihood = log_likelihoods(logits.double(), labels).exp()
    # The mean probability is below 1, so that divided by N + 1 it is smaller than one image.
    return (right + likelihood / (N + 1)).T.matmul(members).argmax(dim=0)


def likeliest_teacher(logits: Float[Tensor, "B M K"], labels: Labels) -> Float[Tensor, "B M"]:
    """Return one-hot weights (B, M) of the teachers likeliest to be right.

    Uniform weights where no teacher knows the label.
    """
    M = logits.shape[1]
    best = log_likelihoods(logits, labels).argmax(dim=1)
    some = knows_label(logits, labels).any(dim=1, keepdim=True)
    return torch.where(some, F.one_hot(best, M).to(logits), 1 / M)


class RoutedWeighting(Weighting):
    """One teacher per sample: the whole weight of a sample is on one of them.

    After the routing of DUNE (Sariyildiz et al., CVPR 2025), which chooses by data set. Both rules read the
    labels of the images that the student learns from.

    Args:
        by: ``class`` takes the teacher that is best on the label's class, measured on the validation split;
            ``correctness`` the teacher that gives the label of the sample the highest probability.
    """

    reads_labels = True
    best: Tensor

    def __init__(self, by: Literal["class", "correctness"]) -> None:
        super().__init__()
        self.needs_held_out = self.depends_on_order = by == "class"

    def build(self, shapes: TensorShapes) -> None:
        """Register a buffer for the teacher of each class, (K,)."""
        if self.needs_held_out:
            self.register_buffer("best", torch.zeros(shapes.classes, dtype=torch.int64))

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Find the best teachers by validation logits (N, M, K) and labels (N,)."""
        self.best.copy_(best_teacher_by_class(logits, labels))

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return one-hot weights for a batch, (B, M)."""
        if not self.needs_held_out:
            return likeliest_teacher(teachers.logits, labels)
        return F.one_hot(self.best[labels], len(teachers.names)).to(teachers.logits)
