"""Check that every loss component trains what it claims to train, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from amtml_pl.distill.doctor.checkup import Finding
from amtml_pl.distill.loss_components import LossComponent

DOMINANT = 100.0


def gradient_norms(
    component: LossComponent, groups: Mapping[str, Sequence[nn.Parameter]]
) -> dict[str, float]:
    """Return the L2 norm of a component's gradient for each parameter group."""
    if not component.value.requires_grad:
        return dict.fromkeys(groups, 0.0)
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = torch.autograd.grad(component.value, parameters, retain_graph=True, allow_unused=True)
    rest = iter(gradients)
    return {name: norm(next(rest) for _ in group) for name, group in groups.items()}


def norm(gradients: Iterable[Tensor | None]) -> float:
    """Return the common L2 norm of gradients; a missing one counts 0."""
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


def gradient_findings(component: LossComponent, norms: Mapping[str, float]) -> Iterator[Finding]:
    """Yield findings where a component does not train exactly what it claims to."""
    name, term, value = component.name, f"the loss term {component.name!r}", component.value.detach()
    for group in component.trains:
        projections = group.startswith("terms.")
        if projections and group not in norms:
            what = f"{term} has no trainable parameters (expected learned projections)"
            yield Finding(f"untrained-projections/{name}", what)
        elif norms.get(group, 0.0) == 0.0:
            kind = "idle-projections" if projections else f"idle-for-the-{group}"
            yield Finding(
                f"{'dead-term' if group == 'student' else kind}/{name}",
                f"{term} gives no gradient to {group_label(group)} (expected a gradient)",
            )
    if not torch.isfinite(value):
        yield Finding(f"not-finite-value/{name}", f"{term} is not finite (got {float(value)})")
    if broken := [group_label(group) for group, length in norms.items() if not math.isfinite(length)]:
        what = f"{term} gives NaN or infinite gradients to {' and '.join(broken)}"
        yield Finding(f"not-finite-gradient/{name}", what)
    others = [group for group, length in norms.items() if length > 0 and group not in component.trains]
    if others:
        yield Finding(
            f"trains-another/{name}",
            f"{term} trains the wrong parameters (got {' and '.join(map(group_label, others))}, "
            f"expected only {' and '.join(map(group_label, component.trains))})",
        )


def group_label(group: str) -> str:
    """Return a parameter group's name for a sentence."""
    is_term = group.startswith("terms.")
    return f"the parameters of the loss term {group.removeprefix('terms.')!r}" if is_term else f"the {group}"


def shares_of(norms: Mapping[str, float]) -> dict[str, float]:
    """Return each finite norm as a share of their sum."""
    finite = {name: value for name, value in norms.items() if math.isfinite(value)}
    total = sum(finite.values())
    return {name: value / total if total > 0 else 0.0 for name, value in finite.items()}


def dominance_warnings(norms: Mapping[str, float]) -> Iterator[str]:
    """Yield a warning if one term's gradient is 100 times all others together."""
    for name, value in norms.items():
        rest = sum(norms.values()) - value
        if rest > 0 and value > DOMINANT * rest:
            yield (
                f"the student's gradient from the loss term {name!r} is {value / rest:,.0f} times that "
                "from all other terms together; lower the coefficient of this term"
            )
