"""Measure how well mixtures of the teachers' outputs predict the labels, without a student."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.results.evaluation.quality import LEAST, ensemble
from amtml_pl.types import Mixture


def mixture_quality(
    logits: Float[Tensor, "N M K"],
    weights: Float[Tensor, "N M"],
    labels: Int64[Tensor, " N"],
    mixture: Mixture,
    temperature: float,
) -> tuple[float, float]:
    """Measure the teachers' outputs, mixed by weights whose rows sum to 1.

    Args:
        logits: of the teachers, not softened; minus infinity for a class that a teacher does not know.
        weights: of the teachers for each image.
        labels: in [0, K).
        mixture: what is averaged.
        temperature: T > 0 of the soft targets.

    Returns:
        The accuracy of the soft targets, in [0, 1], and the mean negative log-likelihood of the labels under
        the mixture at temperature 1, in nats. A label without probability counts 87 nats.
    """
    targets = ensemble(logits.float() / temperature, weights, mixture)
    log_p = ensemble(logits, weights, mixture).gather(1, labels[:, None]).clamp_min(LEAST)
    return float((targets.argmax(dim=1) == labels).double().mean()), float(-log_p.double().mean())


def share_any_right(logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> float:
    """Return the share of images on which any teacher is right, in [0, 1]."""
    return float((logits.argmax(dim=2) == labels[:, None]).any(dim=1).double().mean())
