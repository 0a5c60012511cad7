"""Teacher weights per sample, learned from images that no teacher was trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.likelihood import mixture_likelihood_losses
from amtml_pl.weighting.scheme import Weighting

RIDGE = 0.01  # chosen by the likelihood of test images in three studies, docs/negative-results.md
STEPS = 200


def gate_inputs(logits: Float[Tensor, "B M K"]) -> Float[Tensor, "B D"]:
    """Return the teachers' logits and logsumexp, (B, D) with D = M (K + 1).

    The logsumexp is the negative energy of an image, lower for images unlike those that a teacher was trained
    on (Liu et al., arXiv:2010.03759). The logit of a class that a teacher does not know counts as 0.
    """
    known = logits.masked_fill(logits == -torch.inf, 0.0)
    return torch.cat([known, logits.logsumexp(dim=2, keepdim=True)], dim=2).flatten(1)


class Gate(nn.Module):
    """Linear gating network of a mixture of the teachers.

    ``w = softmax_m(A x + a)`` with x the standardised `gate_inputs` (Jacobs et al., Neural Computation 1991).
    Its parameters are buffers. Before `fit`, the weights are uniform.

    Args:
        teachers: M.
        classes: K.
    """

    center: Tensor
    scale: Tensor
    matrix: Tensor
    offset: Tensor

    def __init__(self, teachers: int, classes: int) -> None:
        super().__init__()
        D = teachers * (classes + 1)
        self.register_buffer("center", torch.zeros(D))
        self.register_buffer("scale", torch.ones(D))
        self.register_buffer("matrix", torch.zeros(teachers, D))
        self.register_buffer("offset", torch.zeros(teachers))

    def fit(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit to held-out images: minimise ``mean_n -log sum_m w_nm softmax(z_nm)_y + RIDGE ||A||²``.

        By L-BFGS in float64, from uniform weights. Labels that no teacher knows have no effect.

        Args:
            logits: of the teachers, not softened.
            labels: in [0, K).
        """
        logits = logits.double()
        inputs = gate_inputs(logits)
        center, deviation = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
        scale = torch.where(deviation > 0, deviation, 1.0)
        inputs = (inputs - center) / scale
        matrix, offset = (torch.zeros_like(b, dtype=torch.float64) for b in (self.matrix, self.offset))
        search = torch.optim.LBFGS(
            [matrix.requires_grad_(), offset.requires_grad_()], max_iter=STEPS, line_search_fn="strong_wolfe"
        )

        def objective() -> Tensor:
            search.zero_grad()
            weights = F.softmax(inputs @ matrix.T + offset, dim=1)
            loss = mixture_likelihood_losses(logits, weights, labels).mean() + RIDGE * matrix.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.inference_mode(False), torch.enable_grad():
            search.step(objective)  # type: ignore[no-untyped-call]
        self.center.copy_(center)
        self.scale.copy_(scale)
        self.matrix.copy_(matrix.detach())
        self.offset.copy_(offset.detach())

    def forward(self, logits: Float[Tensor, "B M K"]) -> Float[Tensor, "B M"]:
        """Return weights (B, M), all above 0 but for underflow; rows sum to 1."""
        inputs = (gate_inputs(logits) - self.center) / self.scale
        return F.softmax(inputs @ self.matrix.T + self.offset, dim=1)


class GatedWeighting(Weighting):
    """Weights by a `Gate` that is fitted to the validation labels.

    An extension. Neither the student nor the labels of the student's images are read.
    """

    needs_held_out = depends_on_order = True

    def build(self, shapes: TensorShapes) -> None:
        """Create the gate, uniform at first."""
        self.gate = Gate(len(shapes.teachers), shapes.classes)

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit the gate to validation logits (N, M, K) and labels (N,)."""
        self.gate.fit(logits, labels)

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        return self.gate(teachers.logits)  # type: ignore[no-any-return]
