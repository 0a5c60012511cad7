"""Deep mutual learning: several untrained students teach one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.func import functional_call

from amtml_pl.distill.checked_calls import value_of
from amtml_pl.distill.loss_components import LossComponent, StepBreakdown, trainable
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.non_finite import require_finite
from amtml_pl.distill.step import at_least_float32, full_precision
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.types import Batch, ModelOutputs, Step

Whole: TypeAlias = Callable[[Tensor], Tensor]  # from a process's share to the whole batch


def mutual_loss(logits: Float[Tensor, "B K"], peers: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
    """Return the mean divergence from the peers, a scalar ≥ 0; the peers are constants.

    ``1 / P · sum_h mean_b KL(p_h || p)`` at temperature 1.
    After Zhang et al., "Deep Mutual Learning" (arXiv:1706.00384), eq. 8.
    """
    own = F.log_softmax(logits, dim=1)
    theirs = F.log_softmax(peers.detach(), dim=2)
    divergences = [F.kl_div(own, each, reduction="batchmean", log_target=True) for each in theirs]
    return torch.stack(divergences).mean()


def alone(share: Tensor) -> Tensor:
    """Return the whole batch of a single process, which is its share."""
    return share


def logits_for_peers(network: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
    """Return a network's logits (B, K), without gradients or an update of running statistics."""
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
        peers: the other networks, at least one; each resizes and normalises as the student does.
        coef_mutual: the multiplier of `mutual_loss`, not 0.

    Raises:
        UserError: if there are teachers, no peers, a coefficient of 0 for these, or a term with parameters.
    """

    steps_itself = True
    mutual = staticmethod(mutual_loss)

    def __init__(
        self, *arguments: Any, peers: Sequence[nn.Module], coef_mutual: float = 1.0, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        if self.teacher_source is not None:
            raise UserError("Mutual learning (loop=dml) cannot use teachers.", fix="'teacher=[]'")
        if not peers:
            raise UserError(
                "Mutual learning needs a peer network (got loop.peers=[]).", fix="remove loop.peers=[]"
            )
        if not coef_mutual:
            fix = "set loop.coef_mutual=1.0, or train without peers: method=ce"
            raise UserError("Mutual learning has no mutual loss (got loop.coef_mutual=0).", fix=fix)
        if learned := [name for name, term in self.terms.items() if any(True for _ in term.parameters())]:
            problem = f"Mutual learning (loop=dml) cannot train the parameters of the loss terms {learned}."
            raise UserError(problem, fix="use only the cross-entropy: 'loss=[ce]'")
        mean, std = self.student.mean.flatten().tolist(), self.student.std.flatten().tolist()
        taps, size, reading = self.student.taps, self.student.input_size, self.student.reading
        tapped = [
            TappedNetwork(peer, mean=mean, std=std, taps=taps, input_size=size, reading=reading)
            for peer in peers
        ]
        self.peers = nn.ModuleList(tapped)
        self.coef["mutual"] = coef_mutual
        self.networks_trained = 1 + len(self.peers)

    def networks(self) -> dict[str, nn.Module]:
        """Return the student and the peers by their groups' names: ``student``, ``peer1``, ``peer2``."""
        return {"student": self.student, **{f"peer{j}": peer for j, peer in enumerate(self.peers, start=1)}}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update each network once, in turn."""
        self.seed_step()
        optimizers = cast("list[LightningOptimizer]", self.optimizers())  # the student's first
        whole = self.gather_batch(batch.labels)
        networks = self.networks()
        peers = {name: network for name, network in networks.items() if name != "student"}
        logits = {name: whole(logits_for_peers(peer, batch.images)) for name, peer in peers.items()}
        for (name, network), optimizer in zip(networks.items(), optimizers, strict=True):
            outputs = self.outputs_of(network, batch, whole)
            self.update(name, outputs, optimizer, batch, batch_idx, logits, whole)
            if name != f"peer{len(self.peers)}":  # the last one's outputs are not used again
                logits[name] = whole(logits_for_peers(network, batch.images))

    def outputs_of(self, network: nn.Module, batch: Batch, whole: Whole) -> ModelOutputs:
        """Return a network's outputs for the whole batch, with gradients, in at least float32."""
        outputs: ModelOutputs = network(batch.images)
        return outputs.map(at_least_float32).map(whole)

    def update(
        self,
        name: str,
        outputs: ModelOutputs,
        optimizer: LightningOptimizer,
        batch: Batch,
        batch_idx: int,
        logits: Mapping[str, Tensor],
        whole: Whole,
    ) -> None:
        """Update one network by its outputs and the others' logits; measure the student's step."""
        step, values = self.losses_of(name, outputs, batch, logits, whole)
        loss = self.total(values)
        require_finite(self, loss, values, batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        if name == "student":
            self.update_metrics(step, batch, values, loss)

    def losses_of(
        self, name: str, student: ModelOutputs, batch: Batch, logits: Mapping[str, Tensor], whole: Whole
    ) -> tuple[Step, dict[str, Float[Tensor, ""]]]:
        """Return a network's step, and its unweighted terms and mutual loss for the others' logits."""
        # In the order of `networks`, on which the order of sums in the backward pass depends.
        others = [at_least_float32(logits[other]) for other in self.networks() if other != name]
        labels, epoch = whole(batch.labels), self.current_epoch
        step = Step(student=student, labels=labels, epoch=epoch, mixed=batch.mixed)
        with full_precision(batch):
            values = {name: value_of(name, term, step) for name, term in self.terms.items()}
            return step, {**values, "mutual": self.mutual(student.logits, torch.stack(others))}

    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return every network's terms and its mutual loss, with their coefficients."""
        self.seed_step()
        networks = self.networks()
        logits = {name: logits_for_peers(each, batch.images) for name, each in networks.items()}
        components: list[LossComponent] = []
        for group, network in networks.items():
            outputs = self.outputs_of(network, batch, alone)
            _, values = self.losses_of(group, outputs, batch, logits, alone)
            suffix = "" if group == "student" else f"@{group}"
            components += [
                LossComponent(f"{name}{suffix}", coef * values[name], (group,))
                for name, coef in self.coef.items()
                if coef
            ]
        return StepBreakdown(components)

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters of the student and its peers, by group."""
        return trainable(self.networks())

    def configure_optimizers(self) -> Any:
        """Return one optimiser and schedule per network."""
        groups = [{"name": name, "params": list(each.parameters())} for name, each in self.networks().items()]
        optimizers = [self.make_optimizer([group]) for group in groups]
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(each) for each in optimizers]
        return optimizers, schedules

    def self_check(self) -> Iterator[tuple[str, str]]:
        """Yield a defect if networks with equal outputs have a mutual loss above 0."""
        logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
        value = float(self.mutual(logits, torch.stack([logits] * len(self.peers))))
        if abs(value) > 1e-5:
            what = f"the loss term 'mutual' is not 0 for equal networks (got {value:.3g})"
            yield "not-zero-at-the-targets/mutual", what
