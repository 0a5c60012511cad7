"""The triplet term of the AMTML notebooks as it runs."""

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
    """The terms for the last teacher's order; where it would swap two rows, both become the third sample.

    Swapping views of a tensor overwrites the first with the second before the second is read, so that
    positive and negative are one sample and the term is the margin, without a gradient.
    """
    second_is_closer = votes([last_teacher], triplets)[:, 0]
    overwritten = triplets[:, [0, 2, 2]]
    return triplet_terms(student, torch.where(second_is_closer[:, None], triplets, overwritten), margin)


class ReleasedTripletLoss(TripletLoss):
    """No votes: the teacher that the notebook's loop leaves behind, the last one, orders every triplet.

    The notebook's distance over the width of stage 2's maps alone is not reproduced: maps of 32x16x16 would
    have to be kept, and it is the corrected term's embeddings that are compared here.
    """

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The loss of the batch, unweighted; 0 for fewer than three samples."""
        student, teachers = self.embeddings(step)
        if len(student) < 3:
            return student.sum() * 0
        triplets = random_triplets(len(student)).to(student.device)
        return released_triplet_terms(student, teachers[-1], triplets, self.margin).mean()
