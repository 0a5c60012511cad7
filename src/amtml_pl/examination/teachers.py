"""What images that a teacher was not trained on tell of it: is it the network that it should be?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amtml_pl.examination.finding import Finding
from amtml_pl.teachers import Teacher

IMAGES = 256
# Means and standard deviations that networks are commonly trained with.
STATISTICS: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "ImageNet's": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "CIFAR-10's": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "CIFAR-100's": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    "a half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}


def examine_teacher(
    teacher: Teacher,
    images: Float[Tensor, "N 3 H W"],
    labels: Int64[Tensor, " N"],
    others: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None,
) -> dict[str, Any]:
    """Its accuracy, with other statistics, and with its outputs assigned to the classes anew.

    Args:
        teacher: with its weights.
        images: in [0, 1], of a split that it was not trained on.
        labels: of the images.
        others: means and deviations to try besides the usual ones, by name, such as the data set's; None for
            a teacher whose own were those of its training, and whose outputs the classes, for certain.

    Returns:
        As JSON: ``images``, ``accuracy``, ``accuracy_with`` per other statistics, ``right_with`` the share of
        images that only those name rightly minus that of images that only the given ones do, in standard
        errors, and ``accuracy_reassigned`` for the best one-to-one assignment of outputs to classes.
    """
    named = said(teacher, images)
    right = named == labels
    accuracy = float(right.float().mean())
    tried: dict[str, float] = {}
    gain: dict[str, float] = {}
    mean, std = teacher.network.mean.clone(), teacher.network.std.clone()
    try:
        for name, (other_mean, other_std) in ({} if others is None else {**others, **STATISTICS}).items():
            if torch.allclose(mean.flatten(), mean.new_tensor(other_mean), atol=0.02) and torch.allclose(
                std.flatten(), std.new_tensor(other_std), atol=0.02
            ):
                continue
            teacher.network.mean.copy_(mean.new_tensor(other_mean).view_as(mean))
            teacher.network.std.copy_(std.new_tensor(other_std).view_as(std))
            other = said(teacher, images) == labels
            tried[name] = float(other.float().mean())
            only, lost = int((other & ~right).sum()), int((right & ~other).sum())
            gain[name] = (only - lost) / math.sqrt(max(only + lost, 1))
    finally:
        teacher.network.mean.copy_(mean)
        teacher.network.std.copy_(std)
    return {
        "images": len(labels),
        "accuracy": accuracy,
        "accuracy_with": tried,
        "gain_in_standard_errors": gain,
        "accuracy_reassigned": accuracy if others is None else reassigned(named, labels),
    }


def said(teacher: Teacher, images: Float[Tensor, "N 3 H W"]) -> Int64[Tensor, " N"]:
    """The class that the teacher names for each image."""
    device = teacher.network.mean.device
    batches = [teacher(part.to(device)).logits.argmax(dim=1).cpu() for part in torch.split(images, 128)]
    return torch.cat(batches)


def reassigned(named: Int64[Tensor, " N"], labels: Int64[Tensor, " N"]) -> float:
    """The accuracy under the one-to-one assignment of outputs to classes that makes it largest."""
    K = int(max(named.max(), labels.max())) + 1
    confusion = torch.bincount(named * K + labels, minlength=K * K).view(K, K)
    outputs, classes = linear_sum_assignment(confusion.numpy(), maximize=True)
    return float(confusion[outputs, classes].sum()) / len(labels)


def teacher_statements(name: str, found: Mapping[str, Any]) -> Iterator[Finding]:
    """What an examination says against a teacher.

    Args:
        name: of the teacher.
        found: what `examine_teacher` has returned.
    """
    accuracy, reassigned_to = found["accuracy"], found["accuracy_reassigned"]
    better = {s: a for s, a in found["accuracy_with"].items() if found["gain_in_standard_errors"][s] > 3}
    best = max(better, key=lambda statistics: better[statistics]) if better else None
    in_words = f"teacher {name!r} names {accuracy:.1%} of {found['images']} validation images rightly"
    # A teacher that sees strange images is often better with other outputs too: the better one counts.
    if best is not None and better[best] >= reassigned_to:
        yield Finding(
            f"wrong-mean-and-std/{name}",
            f"{in_words} with the given mean and std, and {better[best]:.1%} with {best}; expected the "
            "statistics that it was trained with to be its best",
        )
    elif reassigned_to > accuracy + 0.1 + 2 * math.sqrt(0.25 / found["images"]):
        yield Finding(
            f"wrong-class-map/{name}",
            f"{in_words}, and {reassigned_to:.1%} if its outputs mean the classes in another order",
        )


def agreement(logits: Float[Tensor, "N M K"]) -> Float[Tensor, "M M"]:
    """The share of images for which two teachers name the same class, for every pair."""
    named = logits.argmax(dim=2)
    return (named[:, :, None] == named[:, None, :]).float().mean(dim=0)
