"""Deep mutual learning as the AMTML notebooks compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.distill.loops.dml import MutualLearning


def published_mutual_loss(logits: Float[Tensor, "B K"], peers: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
    """Return the notebook's mutual loss, which lacks the logarithm of the peer.

    ``1 / P · sum_h mean_bk p (log p - p_h)``.

    ``KLDivLoss`` expects a log-probability first and gets a probability; its target is the network itself,
    and its mean is over all elements. (The notebook clears the gradients of the peers unused.)
    """
    own = F.log_softmax(logits, dim=1)  # and not the logarithm of a probability that may have become 0
    theirs = F.softmax(peers.detach(), dim=2)
    return torch.stack([(own.exp() * (own - each)).mean() for each in theirs]).mean()


class PublishedMutualLearning(MutualLearning):
    """`MutualLearning` with `published_mutual_loss`, which is not zero where all agree."""

    mutual = staticmethod(published_mutual_loss)
