"""Measure predictions and the agreement of two networks, from their logits for a whole split."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

BINS = 15
LEAST = math.log(torch.finfo(torch.float32).tiny)  # in place of the logarithm of a probability of 0


def calibration_error(probabilities: Float64[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy.

    The confidence is the highest probability; the gaps are those of bins of equal width. Bin i holds the
    confidences in ``(i / BINS, (i + 1) / BINS]``, as in Guo et al., "On Calibration of Modern
    Neural Networks" (arXiv:1706.04599). torchmetrics differs: its bins are open at the right, so that a
    confidence of exactly 1 has a separate bin, and its sums in float32 are off by a tenth for some ten
    thousand confident predictions.

    Args:
        probabilities: rows sum to 1.
        labels: in [0, K).
    """
    confidence, named = probabilities.max(dim=1)
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    place = torch.bucketize(confidence, edges)  # on an edge: the bin that ends there
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, place, confidence - (named == labels).double())
    return float(gaps.abs().sum() / len(labels))


def quality(logits: Float[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> dict[str, float]:
    """Measure a network's logits against labels in [0, K).

    Returns:
        ``acc`` in [0, 1]; ``acc_top5`` likewise, where K is greater than 5; ``nll`` in nats; ``ece`` in
        [0, 1], see `calibration_error`; ``brier`` in [0, 2], the squared error summed over the classes.
    """
    K = logits.shape[1]
    found: dict[str, Tensor | float] = {
        "acc": multiclass_accuracy(logits, labels, num_classes=K, average="micro")
    }
    if K > 5:
        found["acc_top5"] = multiclass_accuracy(logits, labels, num_classes=K, average="micro", top_k=5)
    logits = logits.double()
    probabilities = logits.softmax(dim=1)
    found["nll"] = F.cross_entropy(logits, labels)
    found["ece"] = calibration_error(probabilities, labels)
    found["brier"] = (probabilities - F.one_hot(labels, K)).square().sum(dim=1).mean()
    return {name: float(value) for name, value in found.items()}


def accuracy_by_class(
    logits: Float[Tensor, "N K"], labels: Int64[Tensor, " N"], classes: tuple[str, ...]
) -> dict[str, tuple[float | None, int]]:
    """Return each class's accuracy, None without images, and its number of images."""
    right = logits.argmax(dim=1) == labels
    images = torch.bincount(labels, minlength=len(classes)).tolist()
    hits = torch.bincount(labels[right], minlength=len(classes)).tolist()
    return {
        name: (hit / count if count else None, count)
        for name, hit, count in zip(classes, hits, images, strict=True)
    }


def agreement_with_teacher(
    student: Float[Tensor, "N K"], teacher_log_probabilities: Float[Tensor, "N K"]
) -> dict[str, float]:
    """Compare a student's logits with a teacher's log-probabilities.

    Returns:
        ``agreement``, the share of images with the same class from both, and ``kl``, the mean of
        KL(teacher ‖ student) at temperature 1, in nats.
    """
    same = student.argmax(dim=1) == teacher_log_probabilities.argmax(dim=1)
    own = student.float().log_softmax(dim=1)
    divergence = F.kl_div(own, teacher_log_probabilities, reduction="none", log_target=True)
    divergence = divergence.where(teacher_log_probabilities > -torch.inf, 0.0)  # 0 log 0 is 0
    divergence = divergence.sum() / len(own)
    return {"agreement": float(same.float().mean()), "kl": float(divergence)}


def ensemble(
    teachers: Float[Tensor, "N M K"],
    weights: Float[Tensor, "N M"],
    mixture: Literal["probabilities", "logits"] = "probabilities",
) -> Float[Tensor, "N K"]:
    """Return log-probabilities of the teachers mixed by weights whose rows sum to 1."""
    if mixture == "logits":
        return torch.einsum("nm,nmk->nk", weights, teachers.float()).log_softmax(dim=1)
    return (teachers.float().log_softmax(dim=2) + weights.log()[:, :, None]).logsumexp(dim=1)
