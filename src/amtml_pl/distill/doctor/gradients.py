"""Check that every objective trains what it claims to train, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from amtml_pl.distill.doctor.finding import Finding
from amtml_pl.distill.objectives import LossComponent

OUTWEIGHS = 100.0


def gradient_norms(objective: LossComponent, parts: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, float]:
    """Return the L2 norm of an objective's gradient for each part of the module."""
    if not objective.value.requires_grad:
        return dict.fromkeys(parts, 0.0)
    parameters = [parameter for own in parts.values() for parameter in own]
    gradients = torch.autograd.grad(objective.value, parameters, retain_graph=True, allow_unused=True)
    rest = iter(gradients)
    return {part: norm(next(rest) for _ in own) for part, own in parts.items()}


def norm(gradients: Iterable[Tensor | None]) -> float:
    """Return the common L2 norm of gradients; a missing one counts 0."""
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


def gradient_findings(objective: LossComponent, norms: Mapping[str, float]) -> Iterator[Finding]:
    """Yield findings where an objective does not train exactly what it claims to."""
    name = objective.name
    for part in objective.trains:
        if part.startswith("terms.") and part not in norms:
            yield Finding(
                f"untrained-projections/{name}",
                f"the term {name!r} is to learn projections, and has no trainable parameter",
            )
        elif norms.get(part, 0.0) == 0.0:
            yield Finding(
                f"{idle(part)}/{name}",
                f"the term {name!r} gives {in_words(part)} no gradient: it would change the logged loss and "
                "train nothing there",
            )
    if not torch.isfinite(objective.value.detach()):
        yield Finding(
            f"not-finite-value/{name}",
            f"the term {name!r} is {float(objective.value.detach())}; expected a number",
        )
    if broken := [in_words(part) for part, length in norms.items() if not math.isfinite(length)]:
        yield Finding(
            f"not-finite-gradient/{name}",
            f"the gradient of the term {name!r} for {broken} is not finite; expected numbers",
        )
    if others := [
        in_words(part) for part, length in norms.items() if length > 0 and part not in objective.trains
    ]:
        yield Finding(
            f"trains-another/{name}",
            f"the term {name!r} has a gradient for {others}, which it does not claim to train; expected one "
            f"for {[in_words(part) for part in objective.trains]} alone",
        )


def idle(part: str) -> str:
    """Return the kind of defect of a missing gradient."""
    if part == "student":
        return "dead-term"
    return "idle-projections" if part.startswith("terms.") else f"idle-for-the-{part}"


def in_words(part: str) -> str:
    """Return a module part's name for a sentence."""
    return f"what the term {part[len('terms.') :]!r} learns" if part.startswith("terms.") else f"the {part}"


def shares(length: Mapping[str, float]) -> dict[str, float]:
    """Return each norm as a share of their sum."""
    finite = {name: value for name, value in length.items() if math.isfinite(value)}
    total = sum(finite.values())
    return {name: value / total if total > 0 else 0.0 for name, value in finite.items()}


def outweighing(length: Mapping[str, float]) -> Iterator[str]:
    """Yield a warning if one term's gradient is 100 times all others together."""
    for name, value in length.items():
        rest = sum(length.values()) - value
        if rest > 0 and value > OUTWEIGHS * rest:
            yield (
                f"the term {name!r} outweighs the rest {value / rest:,.0f}-fold in the student's gradient: "
                "lower its coefficient, or raise the others"
            )
