"""Mix the teachers' outputs by a run's own weights and by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.config.build import build_object
from amtml_pl.errors import UserError
from amtml_pl.losses.term import mixture_of_targets
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.results.evaluation.adaptivity import adaptivity
from amtml_pl.results.evaluation.images import EvaluatedImages, own_images
from amtml_pl.results.evaluation.logits import device_of, teacher_logits
from amtml_pl.results.evaluation.mixtures import mixture_quality, share_any_right
from amtml_pl.results.evaluation.quality import ensemble
from amtml_pl.results.run import FinishedRun
from amtml_pl.runs.evaluation import Ensemble, TeacherMixture
from amtml_pl.types import Mixture, TeacherOutputs
from amtml_pl.weighting.held_out import held_out_weights
from amtml_pl.weighting.routed import likeliest_teacher


def mixed_teachers(
    run: FinishedRun,
    images: EvaluatedImages,
    checkpoint: CheckpointName,
    teachers: Mapping[str, Float[Tensor, "N K"]],
) -> tuple[Float[Tensor, "N K"], Ensemble]:
    """Return log-probabilities of all teachers mixed by the run's weights, or else by equal ones.

    Weights that read the labels, which an ensemble must not know, are measured among the mixtures alone.
    """
    logits, names = torch.stack([*teachers.values()], dim=1), run.teacher_names
    uniform = torch.full(logits.shape[:2], 1 / len(names))
    weights = {"uniform": uniform, "likeliest": likeliest_teacher(logits.float(), images.labels)}
    absent: dict[str, str] = {}
    because, reads_labels, adapted = "", {"likeliest", "any_right"}, None
    try:
        own, reads = own_weights(run, images, checkpoint, logits)
        weights |= {"own_mean": own.mean(dim=0).expand_as(own), "own": own}
        right = logits.argmax(dim=2) == images.labels[:, None]
        adapted = adaptivity(own, images.labels, right, names, images.classes)
        if reads is not None:
            reads_labels |= {"own_mean", "own"}
            because = f"The weighting {reads} needs the labels, which an ensemble must not use."
    except UserError as error:
        because = error.what
        absent |= dict.fromkeys(("own_mean", "own"), because)
    try:
        weights |= {name: each.expand_as(uniform) for name, each in fitted_weights(run, images).items()}
    except UserError as error:
        absent |= dict.fromkeys(("per_teacher", "best_single"), error.what)
    mixture, temperature = soft_targets_of(run)
    mixtures = {"any_right": TeacherMixture(acc=share_any_right(logits, images.labels), reads_labels=True)}
    for name, each in weights.items():
        acc, nll = mixture_quality(logits, each, images.labels, mixture, temperature)
        mixtures[name] = TeacherMixture(
            acc=acc, nll=nll, mean_weight=by_name(names, each), reads_labels=name in reads_labels
        )
    used = uniform if because else weights["own"]
    about = Ensemble(
        weights="uniform" if because else "own",
        weighting=run.record.weighting,
        because=because,
        mixture=mixture,
        temperature=temperature,
        mean_weight=by_name(names, used),
        mixtures=mixtures,
        absent=absent,
        adaptivity=adapted,
    )
    return ensemble(logits, used, mixture), about


def by_name(names: Sequence[str], weights: Float[Tensor, "N M"]) -> dict[str, float]:
    """Return the mean weight of each teacher."""
    return dict(zip(names, weights.mean(dim=0).tolist(), strict=True))


def soft_targets_of(run: FinishedRun) -> tuple[Mixture, float]:
    """Return the mixture and the temperature of the run's soft targets."""
    terms = [build_object(node) for node in run.config["loss"].values()]
    default: Mixture = "logits" if run.config.get("mixture") == "logits" else "probabilities"
    own = (term.temperature for term in terms if term.mixture is not None)
    return mixture_of_targets(terms, default), float(next(own, run.record.temperature))


def own_weights(
    run: FinishedRun, images: EvaluatedImages, checkpoint: CheckpointName, teachers: Float[Tensor, "N M K"]
) -> tuple[Float[Tensor, "N M"], str | None]:
    """Return the teachers' weights for each image by the run's own weighting.

    Returns:
        The weights, and the name of the weighting if it reads the labels, else None.

    Raises:
        UserError: if the run has none that can be computed for single images.
    """
    own = run.own_weighting(checkpoint)
    own.student.to(device_of(run))
    weights = own.weights(images.batches(), TeacherOutputs(run.teacher_names, teachers), images.labels)
    return weights, type(own.scheme).__name__ if own.scheme.reads_labels else None


def fitted_weights(run: FinishedRun, images: EvaluatedImages) -> dict[str, Float[Tensor, " M"]]:
    """Return weights fitted to the validation images: constant ones, and the best teacher's.

    Args:
        run: the evaluated run.
        images: those that the weights are measured on.

    Raises:
        UserError: if these are the validation images, or the teachers' outputs for them cannot be found.
    """
    if images.own and images.rows.name == "val":
        raise UserError("These weights are fitted to the validation images, which cannot measure them too.")
    val = own_images(run, "val")
    logits = torch.stack([teacher_logits(run, teacher, val) for teacher in run.teachers], dim=1)
    right = (logits.argmax(dim=2) == val.labels[:, None]).double().mean(dim=0)
    best = F.one_hot(right.argmax(), len(right)).to(logits)
    return {"per_teacher": held_out_weights(logits, val.labels), "best_single": best}
