"""Deep mutual learning: several students, untrained at first, teach one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from amtml_pl.composition import TeacherSource, check_composition
from amtml_pl.distill import full_precision
from amtml_pl.errors import UserError
from amtml_pl.features import TappedNetwork
from amtml_pl.losses.term import LossTerm
from amtml_pl.student_module import StudentModule, at_least_float32
from amtml_pl.types import Batch, ModelOutputs, Step
from amtml_pl.weighting.scheme import Weighting


def mutual_loss(logits: Float[Tensor, "B K"], peers: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
    """``1 / P · sum_h mean_b KL(p_h || p)`` at temperature 1, the peers h being constants.

    After Zhang et al., "Deep Mutual Learning" (arXiv:1706.00384), eq. 8.

    Args:
        logits: of the network that learns.
        peers: of the P others.

    Returns:
        A scalar ≥ 0, zero where all agree.
    """
    own = F.log_softmax(logits, dim=1)
    theirs = F.log_softmax(peers.detach(), dim=2)
    return torch.stack(
        [F.kl_div(own, each, reduction="batchmean", log_target=True) for each in theirs]
    ).mean()


def shown(network: TappedNetwork, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
    """What a network shows its peers: logits of its training mode, without a trace in its running statistics.

    Else those of the student would average over every batch several times, unlike in all other methods.
    """
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    outputs: ModelOutputs = functional_call(network, buffers, (images,))
    return outputs.logits


class MutualLearning(StudentModule):
    """Trains the student and its peers in turn, each on its own terms and towards the others' outputs.

    After one network has been updated, the others see its new outputs. The student is the one that is
    evaluated, selected and saved. A step costs as many networks as there are.

    Args:
        student: the first network.
        terms: of every network, already built; none may learn or need teachers.
        coef: the multiplier of each term.
        num_classes: K.
        optimizer: called once per network.
        scheduler: called once per optimiser.
        teachers: must be None.
        weighting: is not used.
        weighting_lr: is not used.
        seed: of what is random in a step.
        peers: the other networks, at least one; each normalises as the student does.
        coef_mutual: the multiplier of `mutual_loss`.

    Raises:
        UserError: if there are teachers, no peers, or a term learns something of its own.
    """

    def __init__(
        self,
        student: TappedNetwork,
        terms: Mapping[str, LossTerm],
        coef: Mapping[str, float],
        num_classes: int,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        teachers: TeacherSource | None = None,
        weighting: Weighting | None = None,
        weighting_lr: float | None = None,
        seed: int = 0,
        *,
        peers: Sequence[nn.Module],
        coef_mutual: float = 1.0,
    ) -> None:
        super().__init__(student, num_classes, optimizer, scheduler, teachers, seed)
        check_composition(terms, coef, teachers, weighting)
        if teachers is not None:
            raise UserError("Mutual learning has peers and no teachers.", fix="teacher=[]")
        if not peers:
            raise UserError("Mutual learning needs at least one peer.", fix="loop=dml")
        if learned := [name for name, term in terms.items() if next(term.parameters(), None) is not None]:
            raise UserError(f"Mutual learning has no place for terms that learn: {learned}.", fix="loss=[ce]")
        self.automatic_optimization = False
        mean, std = student.mean.flatten().tolist(), student.std.flatten().tolist()
        tapped = [TappedNetwork(peer, mean=mean, std=std, taps=student.taps) for peer in peers]
        self.peers = nn.ModuleList(tapped)
        self.terms = nn.ModuleDict(dict(terms))
        self.coef = {name: float(coef[name]) for name in terms}
        self.coef_mutual = coef_mutual

    @property
    def networks_trained(self) -> int:
        """The student and its peers."""
        return 1 + len(self.peers)

    def networks(self) -> list[TappedNetwork]:
        """The student first."""
        return [self.student, *self.peers]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Updates each network once, in turn."""
        self.repeatable()
        optimizers = self.every_optimizer()
        with torch.no_grad():
            logits = [shown(network, batch.images) for network in self.networks()[1:]]
        logits.insert(0, logits[0])  # the student's place, filled before it is read
        for j, (network, optimizer) in enumerate(zip(self.networks(), optimizers, strict=True)):
            student = network(batch.images)
            others = torch.stack([each for h, each in enumerate(logits) if h != j])
            values = self.values(batch, student.map(at_least_float32), others)
            loss = self.total(values)
            if not torch.isfinite(loss):
                raise self.not_finite(batch, batch_idx, values)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if j < len(self.peers):  # nobody looks at the last one any more
                with torch.no_grad():
                    logits[j] = shown(network, batch.images)
            if j == 0:
                self.count(batch, student.logits, None)
                self.log_losses(batch, values, loss)

    def values(
        self,
        batch: Batch,
        student: ModelOutputs,
        others: Float[Tensor, "P B K"],
    ) -> dict[str, Float[Tensor, ""]]:
        """One network's terms, unweighted, and its distance from the others."""
        step = Step(student, batch.labels, None, None, None, self.current_epoch, batch.mixed)
        with full_precision(batch):
            values = {name: term(step) for name, term in self.terms.items()}
            return {**values, "mutual": self.mutual(student.logits, others)}

    def mutual(self, logits: Float[Tensor, "B K"], others: Float[Tensor, "P B K"]) -> Float[Tensor, ""]:
        """How far a network is from the others."""
        return mutual_loss(logits, at_least_float32(others))

    def total(self, values: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The sum, each value times its coefficient."""
        coef = {**self.coef, "mutual": self.coef_mutual}
        return torch.stack([coef[name] * value for name, value in values.items()]).sum()

    def every_optimizer(self) -> list[pl.core.optimizer.LightningOptimizer]:
        """One per network, the student's first."""
        made = self.optimizers()
        return list(made) if isinstance(made, list) else [made]

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """The student's."""
        yield {"name": "student", "params": list(self.student.parameters())}

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - as Lightning's
        """One optimiser and schedule per network."""
        groups = [list(self.parameter_groups())]
        groups += [
            [{"name": f"peer{j}", "params": list(p.parameters())}] for j, p in enumerate(self.peers, start=1)
        ]
        optimizers = [self.make_optimizer(group) for group in groups]
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(each) for each in optimizers]
        return optimizers, schedules

    def on_train_epoch_end(self) -> None:
        """Steps the schedules, which a loop of one's own has to do itself."""
        super().on_train_epoch_end()
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            if schedule is not None:
                schedule.step()

    def self_check(self) -> Iterator[tuple[str, str]]:
        """Whether networks that agree have nothing to learn from one another."""
        logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
        value = float(self.mutual(logits, torch.stack([logits] * len(self.peers))))
        if abs(value) > 1e-5:
            yield (
                "not-zero-at-the-targets/mutual",
                f"the term 'mutual' is {value:.3g} for networks with equal outputs; expected 0",
            )
