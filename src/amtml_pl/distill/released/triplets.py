"""Triplet term of the AMTML notebooks as it runs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.losses.triplets import TripletLoss, random_triplets, triplet_terms, votes
from amtml_pl.types import Step


def released_triplet_terms(
    student: Float[Tensor, "B D"],
    last_teacher: Float[Tensor, "B ..."],
    triplets: Int64[Tensor, "P 3"],
    margin: float,
) -> Float[Tensor, " P"]:
    """Return the triplet terms (P,) in the last teacher's order, with the notebook's defect.

    Where it would swap two rows, both become the third sample.
    Swapping views of a tensor overwrites the first with the second before the second is read, so that
    positive and negative are one sample and the term is the margin, without a gradient.
    """
    second_is_closer = votes([last_teacher], triplets)[:, 0]
    overwritten = triplets[:, [0, 2, 2]]
    return triplet_terms(student, torch.where(second_is_closer[:, None], triplets, overwritten), margin)


class ReleasedTripletLoss(TripletLoss):
    """Triplet loss ordered by the last teacher alone, without votes.

    The notebook's distance over the width of stage 2's maps alone is not reproduced: maps of 32x16x16 would
    have to be kept. The corrected term's embeddings are compared here.
    """

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar; 0 for fewer than three samples."""
        student, teachers = self.embeddings(step)
        if len(student) < 3:
            return student.sum() * 0
        triplets = random_triplets(len(student)).to(student.device)
        return released_triplet_terms(student, teachers[-1], triplets, self.margin).mean()
