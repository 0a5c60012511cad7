"""Angle-wise relational loss between the batch's student outputs and its targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.angle_directions import angles_from_directions
from amtml_pl.losses.angle_sides import angles_from_sides
from amtml_pl.losses.soft_targets import SoftTargetTerm
from amtml_pl.types import Step

MOST_TRIPLES = 2**22  # of a compiled step, which may hold some tensors of so many numbers


def angle_loss(student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Return RKD-A: the smooth-L1 distance of all angles between triples of samples.

    ``psi(i, j, k) = <n_ij, n_ik>`` with ``n_ij = (x_j - x_i) / ||x_j - x_i||``; the loss is the mean over
    all B³ triples, after Park, Kim, Lu and Cho, "Relational Knowledge Distillation" (arXiv:1904.05068),
    eq. 8. Where two samples coincide, the angle and its gradient are 0.
    The gradient is computed in the same pass as the value and cannot be differentiated again. The B³ angles
    are never all in memory, except in a compiled step with at most ``MOST_TRIPLES`` of them: there they come
    from sides instead of directions.

    Args:
        student: one row per sample, with gradients.
        target: one row per sample, no gradient reaches it.

    Returns:
        A scalar ≥ 0, zero where both sides form the same angles.
    """
    dtype = torch.promote_types(torch.promote_types(student.dtype, target.dtype), torch.float32)
    trained = student.requires_grad and torch.is_grad_enabled()
    student, target = student.to(dtype), target.detach().to(dtype)
    triples = len(student) ** 3
    if torch.compiler.is_compiling() and triples <= MOST_TRIPLES:
        summed, gradient = angles_from_sides(student.detach(), target)
        return (summed + (gradient * (student - student.detach())).sum()) / triples
    value: Tensor = value_and_gradient(student, target, trained)[0]
    return value


def compute(student: Tensor, target: Tensor, trained: bool) -> tuple[Tensor, Tensor]:
    """Return the angle loss, and its gradient (B, D) for the student: zeros unless ``trained``."""
    value, gradient = angles_from_directions(student, target, trained)
    return value / len(student) ** 3, gradient / len(student) ** 3


# An operator of its own, which a compiler calls and does not look into.
value_and_gradient = torch.library.custom_op(
    "amtml_pl::angle_loss",
    compute,
    mutates_args=(),
    schema="(Tensor student, Tensor target, bool trained) -> (Tensor, Tensor)",
)


@value_and_gradient.register_fake
def _(student: Tensor, target: Tensor, trained: bool) -> tuple[Tensor, Tensor]:
    return student.new_empty(()), torch.empty_like(student)


def save_gradient(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
    """Save the gradient that the forward pass has computed."""
    ctx.save_for_backward(output[1])


def chain_rule(ctx: Any, outer: Float[Tensor, ""], _: Tensor) -> tuple[Float[Tensor, "B D"], None, None]:
    """Return the saved gradient times the outer one."""
    (gradient,) = ctx.saved_tensors
    if torch.is_grad_enabled() and outer.requires_grad:
        raise RuntimeError("The angle loss cannot be differentiated twice.")
    return gradient * outer, None, None


value_and_gradient.register_autograd(chain_rule, setup_context=save_gradient)


class AngleLoss(SoftTargetTerm):
    """Angle loss between the student's softened outputs and the integrated soft targets.

    Both sides are probabilities at the same temperature, so that a perfect student has zero loss. (The
    published code compares log-probabilities or logits with probabilities.)

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `amtml_pl.losses.soft_targets.integrated_soft_targets`.
    """

    vanishes_at_targets = True

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        outputs = F.softmax(step.student.logits / self.temperature, dim=1)
        return angle_loss(outputs, self.soft_targets(step).detach())
