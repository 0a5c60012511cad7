"""AEKD's weights: those under which the teachers' gradients oppose one another least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.minimum_norm import minimum_norm_weights
from amtml_pl.weighting.scheme import Weighting, positive_temperature


def logit_gradients(
    student_logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B M K"], temperature: float
) -> Float[Tensor, "M B K"]:
    """Return each teacher's distillation gradient for the student's logits, in closed form.

    ``g_m = d/dz_s of T² mean_b KL(p_m || p_s) = T (p_s - p_m) / B``, p at temperature T. Both sides are
    renormalised among the classes that the teacher knows; the gradient is 0 for the others.

    Args:
        student_logits: not softened.
        teacher_logits: not softened.
        temperature: T > 0.
    """
    compared = on_known_classes(student_logits[:, None].expand_as(teacher_logits), teacher_logits)
    own = F.softmax(compared / temperature, dim=2)
    theirs = F.softmax(teacher_logits / temperature, dim=2)
    return temperature * (own - theirs).transpose(0, 1) / len(own)


class AekdWeighting(Weighting):
    """Weights per batch that make the teachers' summed gradient as short as possible.

    They minimise ``||sum_m a_m g_m||²`` with ``0 <= a_m <= tolerance``, g as in `logit_gradients`.
    After Du et al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space"
    (NeurIPS 2020). The program is solved exactly (`amtml_pl.weighting.minimum_norm`); the published solver
    stops at its starting point (``docs/methods/aekd.md``).

    Args:
        temperature: T > 0.
        tolerance: the largest weight, in [0, 1]; at least 1 / M is always allowed.
        per_sample: True if the gradients of all samples enter the products; False takes each teacher's mean
            over the batch first, as the published code does.
        normalize: True to divide the gradients by their lengths before, and the weights by them after.
    """

    weighs_batches = True

    def __init__(
        self, temperature: float, tolerance: float = 0.6, per_sample: bool = False, normalize: bool = False
    ) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        self.tolerance = tolerance
        self.per_sample = per_sample
        self.normalize = normalize

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M); all rows are the same."""
        with torch.no_grad():
            gradients = logit_gradients(student.logits, teachers.logits, self.temperature).double()
            g = gradients.flatten(1) if self.per_sample else gradients.mean(dim=1)
            weights = gradient_weights(g, self.tolerance, normalize=self.normalize)
        return weights.to(teachers.logits).expand(len(labels), -1)


def gradient_weights(g: Float[Tensor, "M D"], tolerance: float, *, normalize: bool) -> Float[Tensor, " M"]:
    """Return AEKD weights (M,) of gradients; their sum is 1.

    Args:
        g: one gradient per teacher.
        tolerance: as of `AekdWeighting`.
        normalize: as of `AekdWeighting`.
    """
    if not normalize:
        return minimum_norm_weights(g @ g.T, tolerance)
    lengths = g.norm(dim=1).clamp_min(torch.finfo(g.dtype).tiny)
    directions = g / lengths[:, None]
    weights = minimum_norm_weights(directions @ directions.T, tolerance) / lengths
    shares: Tensor = weights / weights.sum()
    return shares
