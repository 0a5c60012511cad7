"""Check of a teacher on images that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from amtml_pl.distill.doctor.finding import Finding
from amtml_pl.teachers.cache.catalogue import TeacherExamination
from amtml_pl.teachers.live import Teacher

IMAGES = 256  # for accuracy and statistics
IMAGES_PER_CLASS = 10  # for the classes: half of them to find the best assignment, half to measure it
CERTAIN = 3.0  # standard errors
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
) -> TeacherExamination:
    """Measure a teacher's accuracy; if needed also with other statistics or classes.

    Args:
        teacher: with its weights.
        images: in [0, 1], of a split that it was not trained on.
        labels: of the images.
        others: means and deviations to try besides the usual ones, by name, such as the data set's; None for
            a teacher whose own statistics and classes are certainly right.

    Returns:
        The accuracy with other statistics is that on the first `IMAGES`. A gain is the number of images that
        are named rightly only then, minus those that are only now, over the root of the number of both.
    """
    named = predicted_classes(teacher, images)
    right = named == labels
    count, accuracy = len(labels), share(right)
    if others is None:
        return TeacherExamination(
            images=count,
            accuracy=accuracy,
            accuracy_reassigned=accuracy,
            accuracy_with={},
            gain_in_standard_errors={},
        )
    reassigned = reassigned_rightly(named, labels)
    gain = {"classes": gain_in_standard_errors(reassigned, right)}
    tried: dict[str, float] = {}
    mean, std = teacher.network.mean.clone(), teacher.network.std.clone()
    images, labels, right = images[:IMAGES], labels[:IMAGES], right[:IMAGES]
    try:
        for name, (other_mean, other_std) in {**others, **STATISTICS}.items():
            if torch.allclose(mean.flatten(), mean.new_tensor(other_mean), atol=0.02) and torch.allclose(
                std.flatten(), std.new_tensor(other_std), atol=0.02
            ):
                continue
            teacher.network.mean.copy_(mean.new_tensor(other_mean).view_as(mean))
            teacher.network.std.copy_(std.new_tensor(other_std).view_as(std))
            other = predicted_classes(teacher, images) == labels
            tried[name] = share(other)
            gain[name] = gain_in_standard_errors(other, right)
    finally:
        teacher.network.mean.copy_(mean)
        teacher.network.std.copy_(std)
    return TeacherExamination(
        images=count,
        accuracy=accuracy,
        accuracy_reassigned=share(reassigned),
        accuracy_with=tried,
        gain_in_standard_errors=gain,
    )


def share(right: Bool[Tensor, " N"]) -> float:
    """Return the share of true entries."""
    return float(right.float().mean())


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
    batches = [teacher(part.to(device)).logits.argmax(dim=1).cpu() for part in torch.split(images, 128)]
    return torch.cat(batches)


def reassigned_rightly(named: Int64[Tensor, " N"], labels: Int64[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """Return which images are correct once outputs are assigned to other classes.

    The classes are those that fit the other images best.
    Each half of the images, every class being spread over both, uses the one-to-one assignment that makes
    the other half's accuracy largest: on its own images an assignment always gains something, and with many
    classes much.
    """
    K = int(max(named.max(), labels.max())) + 1
    half = torch.empty_like(labels)
    half[labels.argsort(stable=True)] = torch.arange(len(labels)) % 2
    right = torch.zeros(len(labels), dtype=torch.bool)
    for measured in (0, 1):
        fitted, rows = half != measured, half == measured
        confusion = torch.bincount(named[fitted] * K + labels[fitted], minlength=K * K).view(K, K)
        # Of equally good assignments the one that leaves outputs where they are.
        outputs, classes = linear_sum_assignment(
            (2 * confusion + torch.eye(K, dtype=torch.int64)).numpy(), True
        )
        means = torch.empty(K, dtype=torch.int64)
        means[torch.from_numpy(outputs)] = torch.from_numpy(classes)
        right[rows] = means[named[rows]] == labels[rows]
    return right


def teacher_findings(name: str, found: TeacherExamination) -> Iterator[Finding]:
    """Yield findings of a teacher's examination."""
    accuracy, reassigned, gain = found.accuracy, found.accuracy_reassigned, found.gain_in_standard_errors
    better = {s: a for s, a in found.accuracy_with.items() if gain[s] > CERTAIN}
    best = max(better, key=lambda statistics: better[statistics]) if better else None
    in_words = f"teacher {name!r} names {accuracy:.1%} of {found.images} validation images rightly"
    # A teacher that sees strange images is often better with other outputs too: the better one counts.
    if best is not None and better[best] >= reassigned:
        yield Finding(
            f"wrong-mean-and-std/{name}",
            f"{in_words} with the given mean and std, and {better[best]:.1%} with {best}; expected the "
            "statistics that it was trained with to be its best",
        )
    elif gain.get("classes", 0.0) > CERTAIN and reassigned > accuracy + 0.02:
        yield Finding(
            f"wrong-class-map/{name}",
            f"{in_words}, and {reassigned:.1%} if its outputs mean the classes in another order",
        )


def agreement(logits: Float[Tensor, "N M K"]) -> Float[Tensor, "M M"]:
    """Return for every pair of teachers the share of equal predictions, (M, M)."""
    named = logits.argmax(dim=2)
    return (named[:, :, None] == named[:, None, :]).float().mean(dim=0)
