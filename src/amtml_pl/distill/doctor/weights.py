"""Check that teacher weights sum to 1, ignore order, and are constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.distill.checked_calls import value_of, weights_of
from amtml_pl.distill.doctor.checkup import Finding
from amtml_pl.distill.doctor.gradients import norm
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Step, TeacherOutputs
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.scheme import Weighting


def weight_findings(
    step: Step, terms: Mapping[str, LossTerm], student: Sequence[nn.Parameter]
) -> Iterator[Finding]:
    """Yield findings for weights that do not sum to 1 or have a student gradient."""
    found: dict[str, Tensor | None] = {"weighting": step.weights, "features": step.feature_weights}
    found |= {name: term.own_weights(step) for name, term in terms.items()}
    for name, weights in found.items():
        if weights is None:
            continue
        sums = weights.detach().sum(dim=1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            got = f"got {sums.min():.4f} to {sums.max():.4f}"
            what = f"the weights of the teachers from {name!r} must sum to 1 ({got})"
            yield Finding(f"unnormalised-weights/{name}", what)
        if not weights.requires_grad or not student:
            continue
        # Along a random direction: the gradient of a norm, say, would be 0 for equal weights.
        along = (weights * torch.randn_like(weights)).sum()
        if norm(torch.autograd.grad(along, list(student), retain_graph=True, allow_unused=True)) > 0:
            yield Finding(
                f"weights-of-the-students-choice/{name}",
                f"the weights of the teachers from {name!r} have a gradient to the student (expected none). "
                "The student could reduce the loss by giving easy teachers more weight",
            )


def order_findings(
    step: Step, terms: Mapping[str, LossTerm], weighting: Weighting, seed_step: Callable[[], None]
) -> Iterator[Finding]:
    """Yield findings for values that change when the teachers change places."""
    if step.teachers is None or step.weights is None or len(step.teachers.names) < 2:
        return
    order = [*range(1, len(step.teachers.names)), 0]
    names = (*step.teachers.names[1:], step.teachers.names[0])
    turned = replace(step.teachers, names=names, logits=step.teachers.logits[:, order])

    def weighed(teachers: TeacherOutputs) -> Tensor:
        seed_step()
        return weights_apart_and_near(weighting, step, teachers)

    if not weighting.depends_on_order and not torch.allclose(
        weighed(turned), weighed(step.teachers)[:, order], atol=1e-3
    ):
        yield Finding(
            "order-of-the-teachers/weighting",
            f"the weighting {type(weighting).__name__} depends on the order of the teachers",
        )
    features = None if step.feature_weights is None else step.feature_weights[:, order]
    other = replace(step, teachers=turned, weights=step.weights[:, order], feature_weights=features)
    for name, term in terms.items():
        if term.depends_on_order:
            continue
        seed_step()
        value = value_of(name, term, step)
        seed_step()
        if not torch.allclose(value, value_of(name, term, other), rtol=1e-3, atol=1e-6):
            what = f"the loss term {name!r} changes its value when the order of the teachers changes"
            yield Finding(f"order-of-the-teachers/{name}", what)


def weights_apart_and_near(
    weighting: Weighting, step: Step, teachers: TeacherOutputs
) -> Float[Tensor, "B2 M"]:
    """Return a step's weights, and below them those for nearly equal logits, (2 B, M).

    There the logits differ a hundredth as much, as at the end of a training. Those of unknown classes stay
    minus infinity.
    """
    logits = teachers.logits.masked_fill(teachers.logits == -torch.inf, 0.0)
    middle = logits.mean(dim=1, keepdim=True)
    closer = on_known_classes(middle + 0.01 * (logits - middle), teachers.logits)
    near = replace(teachers, logits=closer)
    own = middle[:, 0] + 0.01 * (step.student.logits - middle[:, 0])
    apart = weights_of(weighting, step.student, teachers, step.labels)
    return torch.cat([apart, weights_of(weighting, replace(step.student, logits=own), near, step.labels)])
