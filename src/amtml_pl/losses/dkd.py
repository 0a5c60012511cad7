"""Decoupled distillation: probability of the label, and proportions of the other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.losses.kd_each import known_divergence
from amtml_pl.losses.standardize import standardized_pair
from amtml_pl.losses.term import LossTerm, require_range, weighted_over_teachers
from amtml_pl.types import Step
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.scheme import positive_temperature


def decoupled_losses(
    student_logits: Float[Tensor, "B K"],
    teacher_logits: Float[Tensor, "B K"],
    labels: Int64[Tensor, " B"],
    temperature: float,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return target-class and non-target-class distillation losses per sample, (B,), each times T².

    After Zhao et al., "Decoupled Knowledge Distillation" (arXiv:2203.08679), eq. 6 and 7. The first is the
    divergence of the two-way outputs (label, any other). The second is that of the outputs over the K - 1
    other classes; it is 0 for two classes. Both sides are renormalised among the classes that the teacher
    knows. A teacher that does not know the label has a target-class loss of 0.

    Args:
        student_logits: not softened, with gradients.
        teacher_logits: one teacher's, not softened.
        labels: in [0, K).
        temperature: T > 0.
    """
    B, K = student_logits.shape
    others = torch.ones(B, K, dtype=torch.bool, device=labels.device).scatter(1, labels[:, None], value=False)

    def parts(logits: Float[Tensor, "B K"]) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B Kminus1"]]:
        logits = logits / temperature
        target, rest = logits.gather(1, labels[:, None]), logits[others].view(B, K - 1)
        two_way = torch.cat([target, rest.logsumexp(dim=1, keepdim=True)], dim=1)
        return F.log_softmax(two_way, dim=1), F.log_softmax(rest, dim=1)

    compared = on_known_classes(student_logits, teacher_logits)
    pairs = zip(parts(compared), parts(teacher_logits), strict=True)
    target, rest = (temperature**2 * known_divergence(student, teacher) for student, teacher in pairs)
    return target, rest


class DecoupledLoss(LossTerm):
    """Weighted decoupled distillation, ramped up at the beginning.

    ``sum_m mean_b w_bm (alpha · TCKD + beta · NCKD)``, the parts being `decoupled_losses`. The paper has one
    teacher; the weighted sum over several is this project's.

    Args:
        temperature: T > 0.
        epochs: length of the run.
        warmup: share of the epochs over which the term grows to its full size, in [0, 1]; 20 of 240 in the
            published code.
        alpha: multiplier of the target class's part, at least 0.
        beta: multiplier of the other classes' part, at least 0.
        standardize: whether the logits of both sides have mean 0 and deviation 1 (``docs/methods/lskd.md``).
    """

    needs_teachers = vanishes_where_teachers_agree = True
    blends_labels = False

    def __init__(
        self,
        temperature: float,
        epochs: int,
        warmup: float,
        alpha: float = 1.0,
        beta: float = 8.0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        require_range("dkd.warmup", warmup, 0, 1)
        require_range("dkd.alpha", alpha, 0)
        require_range("dkd.beta", beta, 0)
        self.warmup_epochs = warmup * epochs
        self.alpha, self.beta = alpha, beta
        self.standardize = standardize

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""

        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            if self.standardize:
                student, teacher = standardized_pair(student, teacher)
            target, rest = decoupled_losses(student, teacher, step.labels, self.temperature)
            return self.alpha * target + self.beta * rest

        ramp = 1.0 if self.warmup_epochs <= 0 else min((step.epoch + 1) / self.warmup_epochs, 1.0)
        return ramp * weighted_over_teachers(step, loss)
