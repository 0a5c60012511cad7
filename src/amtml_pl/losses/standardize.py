"""Logits of one mean and one deviation, so that their shape alone is distilled."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.types import Mixture
from amtml_pl.weighting.known_classes import on_known_classes

Standardize: TypeAlias = Literal["none", "teachers", "mixture"]
SMALLEST = 1e-7  # added to the deviation, as in the published code


def standardized(logits: Float[Tensor, "... K"]) -> Float[Tensor, "... K"]:
    """Return logits with mean 0 and deviation 1 over the known classes of each row.

    ``(z - mean z) / (1e-7 + deviation of z)``, after Sun et al., "Logit Standardization in Knowledge
    Distillation" (arXiv:2403.01427), and its code: the deviation is the unbiased one.

    Args:
        logits: minus infinity for a class that is not known, which stays so; two or more are known.
    """
    known = logits > -torch.inf
    count = known.sum(dim=-1, keepdim=True)
    mean = torch.where(known, logits, 0.0).sum(dim=-1, keepdim=True) / count
    centred = torch.where(known, logits - mean, 0.0)
    # The gradient of this norm is 0 for equal logits, that of a square root is infinite.
    norm = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    deviation: Tensor = norm / (count - 1).to(norm.dtype).sqrt()
    return (centred / (SMALLEST + deviation)).masked_fill(~known, -torch.inf)


def standardized_pair(
    student: Float[Tensor, "... K"], teacher: Float[Tensor, "... K"]
) -> tuple[Float[Tensor, "... K"], Float[Tensor, "... K"]]:
    """Return both logits `standardized` over the classes that the teacher knows."""
    return standardized(on_known_classes(student, teacher)), standardized(teacher)


def standardized_student(
    logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B M K"], weights: Float[Tensor, "B M"]
) -> Float[Tensor, "B K"]:
    """Return a student's logits `standardized` over the classes of its soft targets.

    They are the classes that any teacher with a weight above 0 knows. Any other class gets 0, the mean: it is
    not compared, but must be finite.

    Args:
        logits: not softened, with gradients.
        teacher_logits: not softened.
        weights: rows sum to 1; constants.
    """
    known = ((teacher_logits > -torch.inf) & (weights > 0)[:, :, None]).any(dim=1)
    return standardized(logits.masked_fill(~known, -torch.inf)).masked_fill(~known, 0.0)


def standardized_soft_targets(
    teacher_logits: Float[Tensor, "B M K"],
    weights: Float[Tensor, "B M"],
    temperature: float,
    mixture: Mixture,
    standardize: Standardize,
) -> Float[Tensor, "B K"]:
    """Return soft targets (B, K) of standardised logits, for a student with standardised logits.

    ``teachers``: every teacher is `standardized`, then they are mixed. ``mixture``: the teachers are mixed,
    then the logits of the mixture are `standardized`; those of mixed probabilities q are ``T ln q``. For one
    teacher both are the paper's. For several, these are this project's.

    Args:
        teacher_logits: not softened.
        weights: rows sum to 1; constants.
        temperature: T > 0.
        mixture: what is averaged, see `integrated_soft_targets`.
        standardize: ``teachers`` or ``mixture``.
    """
    if standardize == "teachers":
        return integrated_soft_targets(standardized(teacher_logits), weights, temperature, mixture)
    if mixture == "logits":
        mixed = torch.einsum("bm,bmk->bk", weights, teacher_logits)
    else:
        shares = weights.log()[:, :, None] + F.log_softmax(teacher_logits / temperature, dim=2)
        mixed = temperature * shares.logsumexp(dim=1)
    return F.softmax(standardized(mixed) / temperature, dim=1)
