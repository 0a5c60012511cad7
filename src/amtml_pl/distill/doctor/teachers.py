"""Check of a teacher on images that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amtml_pl.distill.doctor.checkup import Finding
from amtml_pl.teachers.cache.catalogue import TeacherExamination
from amtml_pl.teachers.live import Teacher
from amtml_pl.types import TeacherOutputs

Statistics: TypeAlias = Mapping[str, tuple[Sequence[float], Sequence[float]]]

IMAGES = 256  # for accuracy and statistics
IMAGES_PER_CLASS = 10  # for the classes: half of them to find the best assignment, half to measure it
CERTAIN = 3.0  # standard errors
# Means and standard deviations that networks are commonly trained with.
USUAL: Statistics = {
    "the ImageNet values": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "the CIFAR-10 values": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "the CIFAR-100 values": ([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
    "mean 0.5 and std 0.5": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "mean 0 and std 1": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}


def examine_teacher(
    teacher: Teacher, images: Float[Tensor, "N 3 H W"], labels: Int64[Tensor, " N"], others: Statistics | None
) -> TeacherExamination:
    """Measure a teacher's accuracy; if needed also with other statistics or classes.

    Args:
        teacher: with its weights.
        images: in [0, 1], of a split that it was not trained on; other statistics see the first `IMAGES`.
        labels: of the images.
        others: means and deviations to try besides the usual ones, by name, such as the data set's; None for
            a teacher whose own statistics and classes are certainly right.
    """
    predicted = predicted_classes(teacher, images)
    right = reassigned = predicted == labels
    tried: dict[str, float] = {}
    gain: dict[str, float] = {}
    if others is not None:
        reassigned = correct_if_reassigned(predicted, labels)
        gain["classes"] = gain_in_standard_errors(reassigned, right)
        for name, other in correct_with(teacher, images[:IMAGES], labels[:IMAGES], {**others, **USUAL}):
            tried[name] = float(other.float().mean())
            gain[name] = gain_in_standard_errors(other, right[:IMAGES])
    return TeacherExamination(
        images=len(labels),
        accuracy=float(right.float().mean()),
        accuracy_reassigned=float(reassigned.float().mean()),
        accuracy_with=tried,
        gain_in_standard_errors=gain,
    )


def correct_with(
    teacher: Teacher, images: Float[Tensor, "N 3 H W"], labels: Int64[Tensor, " N"], statistics: Statistics
) -> Iterator[tuple[str, Bool[Tensor, " N"]]]:
    """Yield the correctly classified images for each mean and deviation that differs from the teacher's."""
    network = teacher.network
    own = network.mean.clone(), network.std.clone()
    try:
        for name, given in statistics.items():
            mean, std = (o.new_tensor(values).view_as(o) for o, values in zip(own, given, strict=True))
            if not (torch.allclose(own[0], mean, atol=0.02) and torch.allclose(own[1], std, atol=0.02)):
                network.mean.copy_(mean)
                network.std.copy_(std)
                yield name, predicted_classes(teacher, images) == labels
    finally:
        network.mean.copy_(own[0])
        network.std.copy_(own[1])


def images_to_examine(classes: int) -> int:
    """Return how many images `examine_teacher` should get."""
    return max(IMAGES, IMAGES_PER_CLASS * classes)


def gain_in_standard_errors(then: Bool[Tensor, " N"], now: Bool[Tensor, " N"]) -> float:
    """Return the gain in correct images, in standard errors of chance (McNemar)."""
    only_then, only_now = int((then & ~now).sum()), int((now & ~then).sum())
    return (only_then - only_now) / math.sqrt(max(only_then + only_now, 1))


def predicted_classes(teacher: Teacher, images: Float[Tensor, "N 3 H W"]) -> Int64[Tensor, " N"]:
    """Return the class that the teacher predicts for each image."""
    device = teacher.network.mean.device
    parts = torch.split(images, 128)
    return torch.cat([teacher(part.to(device)).logits.argmax(dim=1).cpu() for part in parts])


def correct_if_reassigned(predicted: Int64[Tensor, " N"], labels: Int64[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Return which images are correct once outputs are assigned to other classes.

    Each half of the images, every class being spread over both, uses the one-to-one assignment that makes
    the other half's accuracy largest: on its own images an assignment always gains something, and with many
    classes much.
    """
    K = int(max(predicted.max(), labels.max())) + 1
    half = torch.empty_like(labels)
    half[labels.argsort(stable=True)] = torch.arange(len(labels)) % 2
    right = torch.zeros(len(labels), dtype=torch.bool)
    for measured in (0, 1):
        fitted, rows = half != measured, half == measured
        confusion = torch.bincount(predicted[fitted] * K + labels[fitted], minlength=K * K).view(K, K)
        # Of equally good assignments the one that leaves outputs where they are.
        gains = 2 * confusion + torch.eye(K, dtype=torch.int64)
        _, classes = linear_sum_assignment(gains.numpy(), maximize=True)
        right[rows] = torch.from_numpy(classes)[predicted[rows]] == labels[rows]
    return right


def teacher_findings(name: str, found: TeacherExamination) -> Iterator[Finding]:
    """Yield findings of a teacher's examination."""
    accuracy, reassigned, gain = found.accuracy, found.accuracy_reassigned, found.gain_in_standard_errors
    better = {s: a for s, a in found.accuracy_with.items() if gain[s] > CERTAIN}
    best = max(better, key=lambda statistics: better[statistics]) if better else None
    measured = f"accuracy on {found.images} validation images: {accuracy:.1%}"
    # A teacher that sees strange images is often better with other outputs too: the better one counts.
    if best is not None and better[best] >= reassigned:
        yield Finding(
            f"wrong-mean-and-std/{name}",
            f"teacher {name!r} probably has a wrong mean and std ({measured} with mean and std as given, "
            f"{better[best]:.1%} with {best})",
        )
    elif gain.get("classes", 0.0) > CERTAIN and reassigned > accuracy + 0.02:
        what = f"teacher {name!r} probably has a wrong class order ({measured}"
        yield Finding(f"wrong-class-map/{name}", f"{what}, {reassigned:.1%} after reordering the outputs)")


def prediction_agreement(teachers: TeacherOutputs) -> dict[str, float]:
    """Return for every pair of teachers the share of images with the same predicted class."""
    constant = (teachers.logits.amax(dim=2) == teachers.logits.amin(dim=2)).all(dim=0)  # without a classifier
    classes = teachers.logits.float().argmax(dim=2).unbind(1)
    pairs = zip(teachers.names, classes, constant.tolist(), strict=True)
    named = {name: predicted for name, predicted, empty in pairs if not empty}
    return {f"{a} and {b}": float((named[a] == named[b]).float().mean()) for a, b in combinations(named, 2)}
