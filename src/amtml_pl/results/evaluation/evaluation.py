"""Measure a finished run's student on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.config.build import build_object
from amtml_pl.errors import UserError
from amtml_pl.losses.term import mixture_of_targets
from amtml_pl.models.layout import device_for
from amtml_pl.models.taps import TappedNetwork, cost
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.results.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Images, corrupt
from amtml_pl.results.evaluation.images import EvaluatedImages
from amtml_pl.results.evaluation.latency import latency as measured_latency
from amtml_pl.results.evaluation.quality import (
    accuracy_by_class,
    agreement_with_teacher,
    ensemble,
    quality,
)
from amtml_pl.results.run import FinishedRun
from amtml_pl.results.teachers import RecordedTeacher
from amtml_pl.runs.evaluation import (
    ClassAccuracy,
    CorruptedAccuracy,
    Ensemble,
    EvaluatedDataset,
    Evaluation,
    StudentSize,
)
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import weights_digest
from amtml_pl.types import Mixture, ModelOutputs, TeacherOutputs
from amtml_pl.weighting.known_classes import knows_label

# The autocast type of a trainer's precision; the others compute in the type of the weights.
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


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
        others["ensemble"] = mixed.clamp_min(math.log(torch.finfo(mixed.dtype).tiny))
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


def logits_of(
    network: Callable[[Images], ModelOutputs],
    images: EvaluatedImages,
    device: torch.device,
    precision: AbstractContextManager[object],
    change: Callable[[Images, Int64[Tensor, " B"]], Images] | None = None,
) -> Float[Tensor, "N K"]:
    """Return a network's logits for all images, on the CPU.

    Args:
        network: a student or a teacher, in evaluation mode.
        images: N of them.
        device: of the network.
        precision: entered around every forward pass.
        change: applied to images and their positions in the split before the pass.
    """
    logits = []
    with torch.inference_mode():
        for batch, index in images.batches():
            changed = batch if change is None else change(batch, index)
            with precision:
                logits.append(network(changed.to(device)).logits.float().cpu())
    return torch.cat(logits)


def all_teacher_logits(
    run: FinishedRun, images: EvaluatedImages
) -> tuple[dict[str, Float[Tensor, "N K"]], dict[str, str]]:
    """Return logits by ``teacher/<name>``, and the reason for each part that cannot be found."""
    found: dict[str, Float[Tensor, "N K"]] = {}
    left_out: dict[str, str] = {}
    for teacher in run.teachers:
        try:
            found[f"teacher/{teacher.name}"] = teacher_logits(run, teacher, images)
        except UserError as error:
            left_out[f"teacher/{teacher.name}"] = error.what
    if not run.teachers:
        left_out["teachers"] = "the run has no teachers"
    elif left_out:
        left_out["ensemble"] = f"{len(left_out)} of {len(run.teachers)} teachers have no logits here"
    return found, left_out


def mixed_teachers(
    run: FinishedRun,
    images: EvaluatedImages,
    checkpoint: CheckpointName,
    teachers: Mapping[str, Float[Tensor, "N K"]],
) -> tuple[Float[Tensor, "N K"], Ensemble]:
    """Return log-probabilities of all teachers mixed by the run's weights, or else by equal ones."""
    logits = torch.stack([*teachers.values()], dim=1)
    because, mixture = "", mixture_of(run)
    try:
        weights = own_weights(run, images, checkpoint, logits)
    except UserError as error:
        because = error.what
        weights = torch.full(logits.shape[:2], 1 / logits.shape[1])
    about = Ensemble(
        weights="uniform" if because else "own",
        weighting=run.record.weighting,
        because=because,
        mixture=mixture,
        mean_weight=dict(zip(run.teacher_names, weights.mean(dim=0).tolist(), strict=True)),
    )
    return ensemble(logits, weights, mixture), about


def mixture_of(run: FinishedRun) -> Mixture:
    """Return the mixture of the run's soft targets."""
    terms = [build_object(node) for node in run.config["loss"].values()]
    return mixture_of_targets(terms, "logits" if run.config.get("mixture") == "logits" else "probabilities")


def own_weights(
    run: FinishedRun, images: EvaluatedImages, checkpoint: CheckpointName, teachers: Float[Tensor, "N M K"]
) -> Float[Tensor, "N M"]:
    """Return the teachers' weights for each image by the run's own weighting.

    Raises:
        UserError: if there is none, or it reads the labels, which an ensemble must not know.
    """
    own = run.own_weighting(checkpoint)
    if own.scheme.reads_labels:
        what = f"The weighting {type(own.scheme).__name__} needs the labels, which an ensemble must not use."
        raise UserError(what)
    own.student.to(device_of(run))
    return own.weights(images.batches(), TeacherOutputs(run.teacher_names, teachers), images.labels)


def teacher_logits(
    run: FinishedRun, teacher: RecordedTeacher, images: EvaluatedImages
) -> Float[Tensor, "N K"]:
    """Return a teacher's cached or computed logits; a UserError if neither is possible."""
    if teacher.node["head"] == "none":
        raise UserError(f"Teacher {teacher.name!r} gives hints alone (head=none).")
    if images.own and images.rows.name != "train":
        cached = teacher.cached_logits(images.digest, images.rows)
        if cached is not None:
            return cached
    loaded, device = teacher.load(), device_of(run)
    loaded.network.to(device)
    return logits_of(loaded, images, device, nullcontext())


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


def device_of(run: FinishedRun) -> torch.device:
    """Return the device for a run's networks: the accelerator, unless it chose the CPU."""
    return device_for(run.config["trainer"].get("accelerator"))


def precision_of(run: FinishedRun) -> AbstractContextManager[object]:
    """Return the autocast context of the run's own evaluation."""
    dtype = AUTOCAST.get(str(run.config["trainer"].get("precision", "32-true")))
    return nullcontext() if dtype is None else torch.autocast(device_of(run).type, dtype=dtype)
