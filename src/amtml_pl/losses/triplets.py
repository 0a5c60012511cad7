"""OKD's relative dissimilarity: the teachers vote which of two samples is closer to a third."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from amtml_pl.losses.embeddings import EmbeddingTerm
from amtml_pl.types import Step


def votes(teachers: Sequence[Float[Tensor, "B ..."]], triplets: Int64[Tensor, "P 3"]) -> Bool[Tensor, "P M"]:
    """Return each teacher's vote, (P, M): True if ``||t_a - t_i|| <= ||t_a - t_j||``.

    Args:
        teachers: per teacher one embedding per sample.
        triplets: rows (a, i, j) of sample indices in [0, B).
    """
    a, i, j = triplets.unbind(dim=1)
    closer = [(t[a] - t[i]).square().sum(1) <= (t[a] - t[j]).square().sum(1) for t in teachers]
    return torch.stack(closer, dim=1)


def triplet_terms(
    student: Float[Tensor, "B D"], triplets: Int64[Tensor, "P 3"], margin: float
) -> Float[Tensor, " P"]:
    """Return ``max(0, ||s_a - s_i|| - ||s_a - s_j|| + margin)`` per triplet, (P,)."""
    a, i, j = triplets.unbind(dim=1)
    return F.relu(safe_norm(student[a] - student[i]) - safe_norm(student[a] - student[j]) + margin)


def relative_dissimilarity_loss(
    student: Float[Tensor, "B D"],
    teachers: Sequence[Float[Tensor, "B ..."]],
    triplets: Int64[Tensor, "P 3"],
    margin: float,
) -> Float[Tensor, ""]:
    """Return the mean of `triplet_terms`, each triplet ordered by the teachers' majority.

    After You et al., "Learning from Multiple Teacher Networks" (KDD 2017); see ``docs/methods/okd.md``.
    The paper's weights of conflicting teachers are left out. Triplets with as many votes on either side are
    left out, too; the mean is 0 if none remains.

    Args:
        student: one embedding per sample, with gradients.
        teachers: per teacher one embedding per sample.
        triplets: rows (a, i, j) of indices of three different samples.
        margin: at least 0, in the unit of the embeddings' distances.
    """
    ballots = votes(teachers, triplets)
    for_second = 2 * ballots.sum(dim=1)
    turned = torch.where((for_second > ballots.shape[1])[:, None], triplets, triplets[:, [0, 2, 1]])
    decided = (for_second != ballots.shape[1]).to(student)
    return (decided * triplet_terms(student, turned, margin)).sum() / decided.sum().clamp_min(1)


def safe_norm(difference: Float[Tensor, "P D"]) -> Float[Tensor, " P"]:
    """Return Euclidean lengths (P,) whose gradient at 0 is 0, not undefined."""
    squared = difference.square().sum(dim=1)
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


class TripletLoss(EmbeddingTerm):
    """`relative_dissimilarity_loss` of pooled last maps of length 1; B random triplets a batch.

    Every teacher has one vote; their weights are not read. Triplets are drawn from torch's generator, which
    every training step seeds by (seed, step).

    Args:
        tap: the student's last map, as a dotted module path.
        margin: at least 0; two embeddings are at most 2 apart.
    """

    def __init__(self, tap: str, margin: float = 0.2) -> None:
        super().__init__(tap)
        self.margin = margin

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar; 0 for fewer than three samples."""
        student, teachers = self.embeddings(step)
        if len(student) < 3:
            return student.sum() * 0
        triplets = random_triplets(len(student)).to(student.device)
        return relative_dissimilarity_loss(student, teachers, triplets, self.margin)

    def embeddings(self, step: Step) -> tuple[Float[Tensor, "B D"], list[Float[Tensor, "B _"]]]:
        """Return the embeddings of `EmbeddingTerm`, scaled to length 1."""
        student, teachers = super().embeddings(step)
        return F.normalize(student, dim=1), [F.normalize(teacher, dim=1) for teacher in teachers]


def random_triplets(samples: int) -> Int64[Tensor, "P 3"]:
    """Return one triplet of different samples per first sample, drawn on the CPU."""
    a = torch.arange(samples)
    i = (a + torch.randint(1, samples, (samples,))) % samples
    j = (a + torch.randint(1, samples - 1, (samples,))) % samples
    skip = (j - a) % samples >= (i - a) % samples
    return torch.stack([a, i, torch.where(skip, (j + 1) % samples, j)], dim=1)
