"""Means of an epoch: losses, accuracy and the spread of the teachers' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class EpochMeans:
    """Means over the samples of an epoch, at one operation per step.

    Lightning's own means are lost when an epoch is resumed from a checkpoint within it.
    """

    def __init__(self) -> None:
        # By the names that are measured together: their sums, and of how many samples.
        self.sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    def add(self, values: Mapping[str, Float[Tensor, ""]], samples: int) -> None:
        """Add a batch's means, weighted by its number of samples."""
        names = tuple(values)
        new = torch.stack([value.detach().float() for value in values.values()]) * samples
        before, count = self.sums.get(names, (torch.zeros_like(new), 0))
        self.sums[names] = before.to(new.device) + new, count + samples

    def so_far(self) -> dict[str, float]:
        """Return the means over the epoch so far, by name."""
        means: dict[str, float] = {}
        for names, (sums, count) in self.sums.items():
            means |= zip(names, (sums / count).tolist(), strict=True)
        return means

    def take(self) -> dict[str, float]:
        """Return the means by name and start a new epoch."""
        means, self.sums = self.so_far(), {}
        return means

    def state(self) -> list[dict[str, Any]]:
        """Return the sums for a checkpoint."""
        return [{"names": list(n), "sums": s.cpu(), "samples": c} for n, (s, c) in self.sums.items()]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Restore the sums that `state` gave."""
        self.sums = {tuple(of["names"]): (of["sums"], of["samples"]) for of in state}


def weight_statistics(teachers: Sequence[str], weights: Float[Tensor, "B M"]) -> dict[str, Float[Tensor, ""]]:
    """Return mean weights by teacher, mean entropy in nats, and the share above 0.95.

    The names are those under which the epoch's means are logged.
    """
    weights = weights.detach().float()
    return {
        **{f"weight/{name}": mean for name, mean in zip(teachers, weights.mean(dim=0), strict=True)},
        "weight_entropy": torch.special.entr(weights).sum(dim=1).mean(),
        "weight_above_0.95": (weights.amax(dim=1) > 0.95).float().mean(),
    }


def collapse_of(means: Mapping[str, float]) -> tuple[str | None, str]:
    """Return the kind of collapse of an epoch's teacher weights, and a sentence on it.

    One-hot: more than nine in ten samples give one teacher a weight above 0.95. Uniform: the entropy is
    within 0.01 % of ln M, which no adapter that distinguishes anything shows. Both were found in
    the published code (``docs/negative-results.md``).

    Args:
        means: of `weight_statistics`, over an epoch.
    """
    weights = {name: mean for name, mean in means.items() if name.startswith("weight/")}
    M, entropy, above = len(weights), means["weight_entropy"], means["weight_above_0.95"]
    if M > 1 and above > 0.9:
        favourite = max(weights, key=lambda name: weights[name])
        return "one-hot", (
            f"the weighting of the teachers has collapsed to one teacher per sample: {above:.0%} of the "
            "samples give one teacher a weight above 0.95 (the largest mean weight is "
            f"{weights[favourite]:.2f}, of teacher {favourite.removeprefix('weight/')})"
        )
    if M > 1 and entropy > (1 - 1e-4) * math.log(M):
        return "uniform", (
            f"the weighting of the teachers has collapsed to uniform averaging: every weight is 1/{M} "
            f"(the mean entropy is {entropy:.5f} nats, the maximum is {math.log(M):.5f})"
        )
    return None, f"the weighting of the teachers is no longer collapsed (entropy: {entropy:.3f} nats)"


class CollapseChange:
    """Kind of collapse of the epoch before, so that only a change is reported."""

    def __init__(self) -> None:
        self.kind: str | None = None

    def sentence(self, means: Mapping[str, float]) -> str | None:
        """Return the sentence of `collapse_of` if the kind has changed, else None."""
        before, (self.kind, sentence) = self.kind, collapse_of(means)
        return None if self.kind == before else sentence
