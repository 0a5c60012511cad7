"""AMTML's adapter: latent factors of the teachers, scored by the student's features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.gate import Gate
from amtml_pl.weighting.scheme import Weighting


def latent_factor_weights(
    beta: Float[Tensor, "B D"],
    theta: Float[Tensor, "M D"],
    mixing: Float[Tensor, " D"],
    prior: Float[Tensor, "B M"] | None = None,
) -> Float[Tensor, "B M"]:
    """Return adapter weights (B, M): a softmax over latent-factor scores.

    ``w_b = softmax_m( log prior_bm + sum_d beta_bd · theta_md · W_d )``.
    After Liu, Zhang and Wang, Neurocomputing 415 (2020), Fig. 2, and the authors' code.

    Args:
        beta: one representation per sample.
        theta: one latent factor per teacher.
        mixing: W, shared by the teachers. Only the products ``theta_m ∘ W`` matter.
        prior: the weights for a score of 0, above 0; None is uniform, as in the paper.
    """
    score = beta @ (theta * mixing).T
    return F.softmax(score if prior is None else score + prior.log(), dim=1)


class AdaptiveWeighting(Weighting):
    """Per-sample weights from the student's max-pooled last map, which is a constant here.

    The adapter's gradient comes from its own loss terms (`amtml_pl.losses.adapter`). Two scales differ
    from the published code, where the softmax is one-hot at the start or within an epoch: theta starts at
    N(0, 1/D) instead of N(0, 1), and the features are divided by √D. A score and its gradient then do not
    grow with the number of channels D.

    Args:
        tap: the student's last feature map, as a dotted module path.
        prior: ``uniform``, the paper's; ``gate`` takes weights per sample, which a `Gate` computes from the
            teachers' outputs. It is fitted to the labels of the validation split (an extension).
        lr: learning rate of the adapter; None takes the student's.
    """

    depends_on_order = True
    without_held_out = "weighting.prior=uniform"

    def __init__(self, tap: str, prior: Literal["uniform", "gate"], lr: float | None) -> None:
        super().__init__()
        self.tap = tap
        self.lr = lr
        self.needs_held_out = prior == "gate"

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the student's last feature map."""
        return (self.tap,)

    def build(self, shapes: TensorShapes) -> None:
        """Create theta (M, D) and W (D,), D being the channels of the tap."""
        M, D = len(shapes.teachers), shapes.student[self.tap][0]
        self.theta = nn.Parameter(torch.randn(M, D) / D**0.5)
        self.mixing = nn.Parameter(torch.randn(D))
        if self.needs_held_out:
            self.gate = Gate(M, shapes.classes)

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit the prior to validation logits (N, M, K) and labels (N,)."""
        self.gate.fit(logits, labels)

    def prior(self, teachers: TeacherOutputs) -> TeacherWeights | None:
        """Return the weights (B, M) for a score of 0; None means uniform."""
        return self.gate(teachers.logits) if self.needs_held_out else None

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        beta = student.features[self.tap].detach().amax(dim=(2, 3)) / self.mixing.numel() ** 0.5
        return latent_factor_weights(beta, self.theta, self.mixing, self.prior(teachers))
