"""Epoch statistics besides accuracy: means, and the spread of the teachers' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric


@dataclass(frozen=True)
class WeightSummary:
    """Teacher weights of an epoch, in summary.

    Attributes:
        mean: mean weight of each teacher, in [0, 1].
        entropy: mean entropy of the rows, in nats, in [0, ln M].
        above_95: share of the samples with one weight above 0.95.
    """

    mean: dict[str, float]
    entropy: float
    above_95: float

    @property
    def collapse(self) -> Literal["one-hot", "uniform"] | None:
        """Kind of collapse of the weights; None if they have not collapsed.

        One-hot: more than nine in ten samples give one teacher a weight above 0.95. Uniform: the entropy is
        within 0.01 % of ln M, which no adapter that distinguishes anything shows. Both were found in
        the released code (``docs/method.md``).
        """
        teachers = len(self.mean)
        if teachers < 2:
            return None
        if self.above_95 > 0.9:
            return "one-hot"
        return "uniform" if self.entropy > (1 - 1e-4) * math.log(teachers) else None

    def describe(self) -> str:
        """Return a sentence on the state of the adapter, for a warning."""
        teachers = len(self.mean)
        if self.collapse == "one-hot":
            favourite = max(self.mean, key=lambda name: self.mean[name])
            return (
                f"the adapter has collapsed to one teacher per sample: {self.above_95:.0%} of the samples "
                f"give one teacher a weight above 0.95, most often {favourite} "
                f"(mean weight {self.mean[favourite]:.2f})"
            )
        if self.collapse == "uniform":
            return (
                f"the adapter has collapsed to plain averaging: every weight is 1/{teachers} "
                f"(mean entropy {self.entropy:.5f} of at most {math.log(teachers):.5f} nats)"
            )
        return f"the adapter distinguishes its teachers (mean entropy {self.entropy:.3f} nats)"


class WeightStatistics(Metric):
    """Metric that accumulates a `WeightSummary` over the batches and ranks of an epoch."""

    full_state_update = False

    def __init__(self, teachers: tuple[str, ...]) -> None:
        super().__init__()
        self.teachers = teachers
        zero = torch.zeros(())
        self.add_state("total", torch.zeros(len(teachers)), dist_reduce_fx="sum")
        self.add_state("entropy", zero.clone(), dist_reduce_fx="sum")
        self.add_state("above", zero.clone(), dist_reduce_fx="sum")
        self.add_state("samples", zero.clone(), dist_reduce_fx="sum")
        self.total: Tensor
        self.entropy: Tensor
        self.above: Tensor
        self.samples: Tensor

    def update(self, weights: Float[Tensor, "B M"]) -> None:
        """Add the weights of one batch; rows sum to 1."""
        weights = weights.detach().float()
        self.total += weights.sum(dim=0)
        self.entropy += torch.special.entr(weights).sum()
        self.above += (weights.amax(dim=1) > 0.95).sum()
        self.samples += len(weights)

    def compute(self) -> Float[Tensor, " M_and_2"]:
        """Return mean weights, mean entropy and share above 0.95 over all samples so far."""
        return torch.cat([self.total, torch.stack([self.entropy, self.above])]) / self.samples

    def summary(self) -> WeightSummary:
        """Return the statistics by name."""
        *mean, entropy, above_95 = self.compute().tolist()
        return WeightSummary(dict(zip(self.teachers, mean, strict=True)), entropy, above_95)


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

    def take(self) -> dict[str, float]:
        """Return the means by name and start a new epoch."""
        means = {
            name: mean
            for names, (sums, count) in self.sums.items()
            for name, mean in zip(names, (sums / count).tolist(), strict=True)
        }
        self.sums = {}
        return means

    def so_far(self, name: str) -> float | None:
        """Return one mean over the epoch so far; None before it has been measured."""
        for names, (sums, count) in self.sums.items():
            if name in names:
                return float(sums[names.index(name)]) / count
        return None

    def state(self) -> list[dict[str, Any]]:
        """Return the sums for a checkpoint."""
        return [{"names": list(n), "sums": s.cpu(), "samples": c} for n, (s, c) in self.sums.items()]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Restore the sums that `state` gave."""
        self.sums = {tuple(of["names"]): (of["sums"], of["samples"]) for of in state}
