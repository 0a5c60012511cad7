"""Whether the teachers' weights are weights, and not the student's to choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from amtml_pl.distill.doctor.finding import Finding
from amtml_pl.distill.doctor.gradients import norm
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Step


def weight_findings(
    step: Step, terms: Mapping[str, LossTerm], student: Sequence[nn.Parameter]
) -> Iterator[Finding]:
    """Weights that do not sum to 1, or that have a gradient to the student."""
    weighed: dict[str, Tensor | None] = {"weighting": step.weights, "features": step.feature_weights}
    weighed |= {name: term.own_weights(step) for name, term in terms.items()}
    for name, weights in weighed.items():
        if weights is None:
            continue
        sums = weights.detach().sum(dim=1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            yield Finding(
                f"unnormalised-weights/{name}",
                f"the teachers' weights of {name!r} sum to {sums.min():.4f} to {sums.max():.4f}; expected 1",
            )
        if not weights.requires_grad or not student:
            continue
        # Along a random direction: the gradient of a norm, say, would be 0 for equal weights.
        seen = (weights * torch.randn_like(weights)).sum()
        if norm(torch.autograd.grad(seen, list(student), retain_graph=True, allow_unused=True)) > 0:
            yield Finding(
                f"weights-of-the-students-choice/{name}",
                f"the teachers' weights of {name!r} have a gradient to the student, which can lower its loss "
                "by choosing easy targets; expected constants for the student",
            )
