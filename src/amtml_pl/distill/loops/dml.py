"""Deep mutual learning: several untrained students teach one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.func import functional_call

from amtml_pl.distill.loss_components import LossComponent, StepBreakdown, trainable
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.non_finite import require_finite
from amtml_pl.distill.step import at_least_float32, full_precision
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.types import Batch, ModelOutputs, Step


def mutual_loss(logits: Float[Tensor, "B K"], peers: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
    """Return the mean divergence from the peers, a scalar; the peers are constants.

    ``1 / P · sum_h mean_b KL(p_h || p)`` at temperature 1.
    After Zhang et al., "Deep Mutual Learning" (arXiv:1706.00384), eq. 8.

    Returns:
        A scalar ≥ 0, zero where all agree.
    """
    own = F.log_softmax(logits, dim=1)
    theirs = F.log_softmax(peers.detach(), dim=2)
    divergences = [F.kl_div(own, each, reduction="batchmean", log_target=True) for each in theirs]
    return torch.stack(divergences).mean()


def logits_for_peers(network: TappedNetwork, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
    """Return a network's logits (B, K) without gradients or a change of its running statistics.

    These would average over every batch several times, unlike in all other methods.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        outputs: ModelOutputs = functional_call(network, buffers, (images,))
    return outputs.logits


class MutualLearning(StudentModule):
    """Student and peers trained in turn, each on its terms and the others' outputs.

    After one network has been updated, the others see its new outputs. The student alone is evaluated,
    selected and saved.

    Args:
        arguments: those of `amtml_pl.distill.module.StudentModule`, ``student`` being the first network;
            every network has its optimiser and schedule, and the terms.
        peers: the other networks, at least one; each normalises as the student does.
        coef_mutual: the multiplier of `mutual_loss`, not 0.

    Raises:
        UserError: if there are teachers, no peers, a coefficient of 0 for these, or a term with parameters.
    """

    steps_itself = True

    def __init__(
        self, *arguments: Any, peers: Sequence[nn.Module], coef_mutual: float = 1.0, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        if self.teacher_source is not None:
            raise UserError("Mutual learning takes peers instead of teachers.", fix="teacher=[]")
        if not peers:
            raise UserError("Mutual learning needs at least one peer.", fix="loop=dml")
        if not coef_mutual:
            fix = "loop.coef_mutual=1.0, or method=ce"
            raise UserError("Mutual learning has no mutual loss (got coef_mutual=0).", fix=fix)
        if learned := [name for name, term in self.terms.items() if any(True for _ in term.parameters())]:
            raise UserError(f"Mutual learning cannot train the parameters of {learned}.", fix="loss=[ce]")
        mean, std = self.student.mean.flatten().tolist(), self.student.std.flatten().tolist()
        tapped = [TappedNetwork(peer, mean=mean, std=std, taps=self.student.taps) for peer in peers]
        self.peers = nn.ModuleList(tapped)
        self.coef["mutual"] = coef_mutual
        self.networks_trained = 1 + len(self.peers)

    def networks(self) -> list[TappedNetwork]:
        """Return the student, then the peers."""
        return [self.student, *self.peers]

    def named_peers(self) -> dict[str, nn.Module]:
        """Return the peers by their groups' names: ``peer1``, ``peer2`` and so on."""
        return {f"peer{j}": peer for j, peer in enumerate(self.peers, start=1)}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update each network once, in turn."""
        self.seed_step()
        optimizers = cast("list[LightningOptimizer]", self.optimizers())  # the student's first
        whole = self.gather_batch(batch.labels)
        labels = whole(batch.labels)
        logits = [whole(logits_for_peers(network, batch.images)) for network in self.networks()[1:]]
        logits.insert(0, logits[0])  # the student's place, filled before it is read
        for j, (network, optimizer) in enumerate(zip(self.networks(), optimizers, strict=True)):
            student = network(batch.images).map(at_least_float32).map(whole)
            others = torch.stack([each for h, each in enumerate(logits) if h != j])
            step = Step(student, labels, None, None, None, self.current_epoch, batch.mixed)
            values = self.values(step, others)
            loss = self.total(values)
            require_finite(self, loss, values, batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if j < len(self.peers):  # the last one's outputs are not used again
                logits[j] = whole(logits_for_peers(network, batch.images))
            if j == 0:
                self.update_metrics(step, batch, values, loss)

    def values(self, step: Step, others: Float[Tensor, "P B K"]) -> dict[str, Float[Tensor, ""]]:
        """Return one network's unweighted terms, and its distance from the others."""
        with full_precision(step.labels):
            values = {name: term(step) for name, term in self.terms.items()}
            return {**values, "mutual": self.mutual(step.student.logits, others)}

    def mutual(self, logits: Float[Tensor, "B K"], others: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
        """Return the mutual loss between a network and the others, a scalar."""
        return mutual_loss(logits, at_least_float32(others))

    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return every network's terms and its mutual loss, with their coefficients."""
        self.seed_step()
        logits = [logits_for_peers(network, batch.images) for network in self.networks()]
        components: list[LossComponent] = []
        for j, network in enumerate(self.networks()):
            group = "student" if j == 0 else f"peer{j}"
            others = torch.stack([each for h, each in enumerate(logits) if h != j])
            student = network(batch.images).map(at_least_float32)
            step = Step(student, batch.labels, None, None, None, self.current_epoch, batch.mixed)
            values = self.values(step, others)
            components += [
                LossComponent(name if j == 0 else f"{name}@{group}", coef * values[name], (group,))
                for name, coef in self.coef.items()
                if coef
            ]
        return StepBreakdown(components)

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters of the student and its peers, by group."""
        return {**super().trainable_groups(), **trainable(self.named_peers())}

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Yield the student's parameter group."""
        yield {"name": "student", "params": list(self.student.parameters())}

    def configure_optimizers(self) -> Any:
        """Return one optimiser and schedule per network."""
        groups = [list(self.parameter_groups())]
        groups += [[{"name": name, "params": list(p.parameters())}] for name, p in self.named_peers().items()]
        optimizers = [self.make_optimizer(group) for group in groups]
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(each) for each in optimizers]
        return optimizers, schedules

    def self_check(self) -> Iterator[tuple[str, str]]:
        """Yield a defect if networks with equal outputs have a mutual loss above 0."""
        logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
        value = float(self.mutual(logits, torch.stack([logits] * len(self.peers))))
        if abs(value) > 1e-5:
            yield (
                "not-zero-at-the-targets/mutual",
                f"the term 'mutual' is {value:.3g} for networks with equal outputs; expected 0",
            )
