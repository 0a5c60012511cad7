"""Measure a finished run's student on a split."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from amtml_pl.models.taps import TappedNetwork, cost
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.results.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from amtml_pl.results.evaluation.ensemble import mixed_teachers
from amtml_pl.results.evaluation.images import EvaluatedImages
from amtml_pl.results.evaluation.latency import latency as measured_latency
from amtml_pl.results.evaluation.logits import all_teacher_logits, device_of, logits_of, precision_of
from amtml_pl.results.evaluation.quality import LEAST, accuracy_by_class, agreement_with_teacher, quality
from amtml_pl.results.run import FinishedRun
from amtml_pl.runs.evaluation import (
    ClassAccuracy,
    CorruptedAccuracy,
    EvaluatedDataset,
    Evaluation,
    StudentSize,
)
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import weights_digest
from amtml_pl.weighting.known_classes import knows_label


def evaluate_student(
    run: FinishedRun,
    images: EvaluatedImages,
    checkpoint: CheckpointName = "best",
    *,
    teachers: bool = True,
    latency: bool = True,
    corruptions: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Measure a run's student on a split.

    Args:
        run: a completed one.
        images: of the run's data set, or of another one with the same classes.
        checkpoint: which epoch's weights.
        teachers: whether to compare it with its teachers, as far as they can be found.
        latency: whether to measure its time per image on this machine's CPU.
        corruptions: whether to measure it on corrupted images too.
        seed: of the corruptions' noise.

    Raises:
        UserError: if the checkpoint or the images cannot be used.
    """
    student = run.student(checkpoint)
    split, size, device = images.rows.name, run.config["dataset"]["image_size"], device_of(run)
    speed = measured_latency(student, size) if latency else None
    student.to(device)
    logits = logits_of(student, images, device, precision_of(run))
    metrics = {f"{split}/{name}": value for name, value in quality(logits, images.labels).items()}
    others, left_out = all_teacher_logits(run, images) if teachers else ({}, {"teachers": "teachers=false"})
    about_ensemble = None
    if others and len(others) == len(run.teachers):
        mixed, about_ensemble = mixed_teachers(run, images, checkpoint, others)
        # Where the weighting leaves a class no probability, its image counts all the same.
        others["ensemble"] = mixed.clamp_min(LEAST)
    for name, other in others.items():
        known = knows_label(other[:, None], images.labels)[:, 0]  # a teacher counts on its classes alone
        if known.any():
            measured = quality(other[known], images.labels[known])
            measured |= agreement_with_teacher(logits[known], other[known].float().log_softmax(dim=1))
            metrics |= {f"{name}/{split}/{what}": value for what, value in measured.items()}
    if not latency:
        left_out["latency"] = "latency=false"
    by_class = accuracy_by_class(logits, images.labels, images.classes)
    return Evaluation(
        experiment=run.record.experiment,
        seed=run.record.seed,
        checkpoint=checkpoint,
        weights_digest=weights_digest(student),
        split=split,
        dataset=EvaluatedDataset(
            name=images.dataset, digest=images.digest, images=len(images), own=images.own
        ),
        device=device.type,
        metrics=metrics,
        ensemble=about_ensemble,
        classes={name: ClassAccuracy(acc=acc, images=count) for name, (acc, count) in by_class.items()},
        left_out=left_out,
        latency=speed,
        size=student_size(run, student, size),
        corruptions=corrupted_accuracy(student, images, precision_of(run), seed) if corruptions else None,
    )


def corrupted_accuracy(
    student: TappedNetwork, images: EvaluatedImages, precision: AbstractContextManager[object], seed: int
) -> CorruptedAccuracy:
    """Return the accuracy under each corruption and severity, and the mean of all."""
    accuracy: dict[str, tuple[float, ...]] = {}
    for kind in CORRUPTIONS:
        changes = (partial(corrupt, kind=kind, severity=severity, seed=seed) for severity in SEVERITIES)
        logits = (logits_of(student, images, student.mean.device, precision, change) for change in changes)
        accuracy[kind] = tuple(quality(each, images.labels)["acc"] for each in logits)
    values = [value for each in accuracy.values() for value in each]
    return CorruptedAccuracy(seed=seed, mean_acc=sum(values) / len(values), acc=accuracy)


def student_size(run: FinishedRun, student: TappedNetwork, image_size: int) -> StudentSize:
    """Return the size of a student and of its file."""
    file = RunFolder(run.path).weights_file
    return StudentSize(
        **vars(cost(student, image_size)),
        bytes=sum(tensor.nbytes for tensor in student.network.state_dict().values()),
        file_bytes=file.stat().st_size if file.is_file() else None,
    )
