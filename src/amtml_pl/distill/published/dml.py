"""Deep mutual learning as the AMTML notebooks compute it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from amtml_pl.distill.loops.dml import MutualLearning
from amtml_pl.types import Batch


def published_mutual_loss(logits: Float[Tensor, "B K"], peers: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
    """Return the notebook's mutual loss, which lacks the logarithm of the peer.

    ``1 / P · sum_h mean_bk p (log p - p_h)``.

    ``KLDivLoss`` expects a log-probability first and gets a probability; its target is the network itself,
    and its mean is over all elements.
    """
    own = F.log_softmax(logits, dim=1)  # and not the logarithm of a probability that may have become 0
    theirs = F.softmax(peers.detach(), dim=2)
    return torch.stack([(own.exp() * (own - each)).mean() for each in theirs]).mean()


class PublishedMutualLearning(MutualLearning):
    """`MutualLearning` with `published_mutual_loss`, all of whose networks run once before any update.

    The notebook's later backward passes also reach the updated networks. It clears those gradients unused.
    """

    mutual = staticmethod(published_mutual_loss)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update each network once, by the outputs of all before the first update."""
        self.seed_step()
        optimizers = cast("list[LightningOptimizer]", self.optimizers())
        whole = self.gather_batch(batch.labels)
        outputs = {name: self.outputs_of(each, batch, whole) for name, each in self.networks().items()}
        logits = {name: each.logits.detach() for name, each in outputs.items()}
        for (name, each), optimizer in zip(outputs.items(), optimizers, strict=True):
            self.update(name, each, optimizer, batch, batch_idx, logits, whole)
