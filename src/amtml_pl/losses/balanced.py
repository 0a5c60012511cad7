"""Balanced feature matching: standardised maps of several teachers, and teacher dropping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from amtml_pl.losses.map_scaling import MapScaling, Scaling
from amtml_pl.losses.term import LossTerm, require_offered, require_range, require_teachers
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.models.pooling import pool
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


def matching_losses(
    projected: Sequence[Float[Tensor, "B ..."]], targets: Sequence[Float[Tensor, "B ..."]]
) -> Float[Tensor, "B M"]:
    """Return the mean loss of all positions per sample and teacher, (B, M).

    ``mean_hw [0.5 (1 - cos) + 0.5 mean_c smooth-L1]``. Both compare channels at one position.
    After UNIC (Sariyildiz et al., arXiv:2408.05088).

    Args:
        projected: per teacher the student's map in that teacher's shape, with gradients.
        targets: per teacher its standardised map.
    """

    def loss(made: Tensor, target: Tensor) -> Tensor:
        apart = 1 - F.cosine_similarity(made, target, dim=1)
        distance = F.smooth_l1_loss(made, target, reduction="none").mean(dim=1)
        return (0.5 * apart + 0.5 * distance).flatten(1).mean(dim=1)

    return torch.stack([loss(*pair) for pair in zip(projected, targets, strict=True)], dim=1)


def kept_teachers(
    losses: Float[Tensor, "B M"], drawn: Float[Tensor, "B M"], drop: float
) -> Bool[Tensor, "B M"]:
    """Return the teachers that each sample keeps: of the highest loss, and not drawn.

    Args:
        losses: of each sample and teacher.
        drawn: uniform in [0, 1); a teacher is dropped below ``drop``.
        drop: probability in [0, 1].
    """
    return (drawn >= drop).scatter(1, losses.detach().argmax(dim=1, keepdim=True), value=True)


class BalancedLoss(LossTerm):
    """Mean of `matching_losses` over the kept teachers of all samples.

    ``sum_bm c_bm L_bm / sum_bm c_bm``, c being `kept_teachers`: it replaces the teachers' weights, which are
    not read. Each projection is a 1×1 convolution with a bias. Where the sizes differ, the student's map is
    first averaged, or repeated, to the teacher's size. UNIC's projectors of every block, and its class
    tokens, are left out. The random numbers are drawn from torch's generator, which every training step
    seeds by (seed, step).

    Args:
        hint: the student's last map, as a dotted module path.
        scaling: how the teachers' maps are standardised: ``per_channel`` by mean and deviation of each
            channel, ``phi_s`` by one rotation and one scale per teacher.
        drop: probability with which a sample drops each teacher but the one with the highest loss, in [0, 1].
    """

    needs_teachers = learns = depends_on_order = True
    reads_logits = False

    def __init__(self, hint: str, scaling: Scaling = "per_channel", drop: float = 0.5) -> None:
        super().__init__()
        require_range("balanced.drop", drop, 0, 1)
        self.hint, self.kind, self.drop = hint, scaling, drop
        self.names: tuple[str, ...] = ()
        self.projections, self.scalings = nn.ModuleList(), nn.ModuleList()

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the one map that is read."""
        return (self.hint,)

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the name of every teacher's last map."""
        require_offered("A balanced loss term", offered)
        return tuple(f"{teacher}/{taps.hint}" for teacher, taps in offered.items())

    def summed_hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the hints whose statistics the term needs: all that it reads."""
        return self.hints(offered)

    def set_hint_statistics(self, statistics: Mapping[str, HintStatistics]) -> None:
        """Take the statistics of the hints, before the fit begins."""
        for name, scaling in zip(self.names, self.scalings, strict=True):
            cast("MapScaling", scaling).set_statistics(statistics[name])

    def build(self, shapes: TensorShapes) -> None:
        """Create one projection and one scaling per teacher."""
        self.names = self.hints(shapes.offered)
        source = shapes.student[self.hint][0]
        for name in self.names:
            channels = shapes.hints[name][0]
            self.projections.append(nn.Conv2d(source, channels, kernel_size=1))
            self.scalings.append(MapScaling(channels, self.kind))

    def losses(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the loss of every sample and teacher, (B, M)."""
        teachers, _ = require_teachers(step)
        feature = step.student.features[self.hint]
        maps = [teachers.hints[name] for name in self.names]
        projections, scalings = (
            cast("Iterable[nn.Module]", modules) for modules in (self.projections, self.scalings)
        )
        projected = [p(pool(feature, *m.shape[2:])) for p, m in zip(projections, maps, strict=True)]
        return matching_losses(projected, [s(m) for s, m in zip(scalings, maps, strict=True)])

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        losses = self.losses(step)
        if self.drop == 0:
            return losses.mean()
        drawn = torch.rand(losses.shape).to(losses.device)  # on the CPU: the same numbers for every device
        kept = kept_teachers(losses, drawn, self.drop).to(losses)
        return (kept * losses).sum() / kept.sum()
