"""MTKD-RL: an agent weighs the teachers, rewarded for the student's low loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from amtml_pl.distill.loops.learned_weights import LearnedWeightsLoop
from amtml_pl.distill.step import full_precision
from amtml_pl.losses.kd_each import soft_target_losses
from amtml_pl.losses.regression import regression_errors
from amtml_pl.losses.term import require_teachers
from amtml_pl.models.state import buffers_restored
from amtml_pl.types import Batch, Step
from amtml_pl.weighting.confidence import confidence_weights
from amtml_pl.weighting.known_classes import among_those_who_know, knows_label


class MTKDRL(LearnedWeightsLoop):
    """`DistillModule` whose weights, of outputs and of features, come from a learning agent.

    After Yang et al., "Multi-Teacher Knowledge Distillation with Reinforcement Learning" (AAAI 2025), and its
    code; formulas: ``docs/methods/mtkd_rl.md``. Per sample the agent reads how close the student's
    features and outputs are to each teacher's, that teacher's loss, and its features and outputs. Its shares
    are averaged with two fixed ones (static aggregation). The agent is trained by regression towards 1,
    weighted by the standardised reward; rewards below the mean of the batch have no effect, as published.

    Departures: the agent learns after every step, not once an epoch from all states; epoch 0 has learned
    weights, not 1 for every teacher; maps of other sizes are compared as in `FeatureRegression`. Of a teacher
    that does not know a class the agent reads the logit 0; if the label is that class, the loss ln K, and
    the teacher's weights are 0.

    Args:
        arguments: those of `LearnedWeightsLoop`.
        hidden: width of the agent's one hidden layer.
        agent_lr: its learning rate.

    Raises:
        UserError: as `LearnedWeightsLoop`.
    """

    def __init__(self, *arguments: Any, hidden: int = 128, agent_lr: float = 0.1, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.agent_lr = agent_lr
        channels = [regressor.project.out_channels for regressor in self.regression.each()]
        M = len(channels)
        self.agent = Agent(sum(channels) + M * (3 + self.num_classes), hidden, M)

    def distill_step(self, batch: Batch) -> ObservedStep:
        """Return the step with the agent's observation and weights, constants for the student."""
        step = super().distill_step(batch)
        with torch.no_grad(), full_precision(batch):
            observation = self.observe(step)
            weights, feature_weights = self.weigh(observation)
        weighted = replace(step, weights=weights, feature_weights=feature_weights)
        return ObservedStep(**vars(weighted), observation=observation)

    def observe(self, step: Step) -> Observation:
        """Return the agent's observation of a step, as constants."""
        teachers, _ = require_teachers(step)
        logits, M = teachers.logits, teachers.logits.shape[1]
        with torch.no_grad(), buffers_restored(self.regression):  # the term itself updates the statistics
            regressed, targets = self.regression.regressed(step), self.regression.targets(step)
            own = [made.mean(dim=(2, 3)) for made in regressed]
            theirs = [target.mean(dim=(2, 3)) for target in targets]
            near = [F.cosine_similarity(a, b, dim=1) for a, b in zip(own, theirs, strict=True)]
            cosine = torch.stack(near, dim=1)
            divergence = soft_target_losses(step.student.logits, logits, self.temperature)
            labels = step.labels[:, None].expand(-1, M)
            wrongness = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            knows = knows_label(logits, step.labels)
            wrongness = wrongness.where(knows, math.log(logits.shape[2]))
            known = logits.masked_fill(logits == -torch.inf, 0.0)
            measures = torch.stack([cosine, divergence, wrongness], dim=2)
            state = [torch.cat([measures[:, m], theirs[m], known[:, m]], dim=1) for m in range(M)]
            return Observation(
                state=torch.cat(state, dim=1),
                knows=knows,
                cosine=cosine,
                divergence=divergence,
                confidence=confidence_weights(logits, step.labels),
                errors=regression_errors(regressed, targets),
                cross_entropy=F.cross_entropy(step.student.logits, step.labels, reduction="none"),
            )

    def weigh(self, seen: Observation) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """Return the weights of outputs and of features, each (B, M), differentiable in the agent."""
        for_logits, for_features = self.agent(seen.state)
        weights = aggregated_weights(for_logits, seen.confidence, seen.divergence)
        feature_weights = aggregated_weights(for_features, seen.confidence, seen.cosine)
        return among_those_who_know(weights, seen.knows), among_those_who_know(feature_weights, seen.knows)

    def weights_loss(self, batch: Batch, step: Step, lr: float) -> Float[Tensor, ""]:
        """Return the agent's loss, a scalar: more reward demands larger weights."""
        seen = cast("ObservedStep", step).observation  # it gave the step's weights
        with full_precision(step.labels):
            weights, feature_weights = self.weigh(seen)
            loss = self.coef.get("ce", 0.0) * seen.cross_entropy
            loss = loss + self.coef["kd_each"] * (weights.detach() * seen.divergence).sum(dim=1)
            loss = loss + self.coef["regression"] * (feature_weights.detach() * seen.errors).sum(dim=1)
            return agent_loss(weights, reward(-loss)) + agent_loss(feature_weights, reward(-loss))

    def second_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the agent."""
        return torch.optim.SGD(self.agent.parameters(), lr=self.agent_lr)

    def weighting_networks(self) -> dict[str, nn.Module]:
        """Return the agent, by name."""
        return {"agent": self.agent}


@dataclass(frozen=True)
class Observation:
    """Agent's view of a batch (``state``), and the inputs of its reward.

    Attributes:
        state: ``(B, D)``, the input of the agent; per teacher its cosine, divergence and cross-entropy, C
            channels and K logits.
        knows: ``(B, M)``, which teachers know the label.
        cosine: ``(B, M)``, cosine similarity of the student's pooled features to each teacher's.
        divergence: ``(B, M)``, KL divergence of the softened outputs, times T².
        confidence: ``(B, M)``, CA-MKD's weights; rows sum to 1.
        errors: ``(B, M)``, regression errors of the features.
        cross_entropy: ``(B,)``, of the student with the labels.
    """

    state: Float[Tensor, "B D"]
    knows: Bool[Tensor, "B M"]
    cosine: Float[Tensor, "B M"]
    divergence: Float[Tensor, "B M"]
    confidence: Float[Tensor, "B M"]
    errors: Float[Tensor, "B M"]
    cross_entropy: Float[Tensor, " B"]


@dataclass(frozen=True, kw_only=True)
class ObservedStep(Step):
    """Step with the observation from which the agent has weighed the teachers."""

    observation: Observation


class Agent(nn.Module):
    """Network with one hidden layer and two heads, each a softmax over the teachers."""

    def __init__(self, inputs: int, hidden: int, teachers: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden, bias=False), nn.ReLU())
        self.for_logits = nn.Linear(hidden, teachers)
        self.for_features = nn.Linear(hidden, teachers)

    def forward(self, state: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """Return the shares for outputs and for features, each (B, M); rows sum to 1."""
        hidden = self.body(state)
        return F.softmax(self.for_logits(hidden), dim=1), F.softmax(self.for_features(hidden), dim=1)


def aggregated_weights(
    policy: Float[Tensor, "B M"], confidence: Float[Tensor, "B M"], measure: Float[Tensor, "B M"]
) -> Float[Tensor, "B M"]:
    """Return ``(policy + confidence + softmax(measure)) / 3``, (B, M); rows sum to 1.

    Args:
        policy: the agent's shares.
        confidence: CA-MKD's weights.
        measure: divergences for the outputs, cosines for the features; a larger one weighs more in both.
    """
    return (policy + confidence + F.softmax(measure, dim=1)) / 3


def reward(gain: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return gains standardised in the batch and cut to [0, 1]; 0 if equal.

    The deviation is the unbiased one, as published.
    """
    above = gain - gain.mean()
    spread = (above.square().sum() / max(len(gain) - 1, 1)).sqrt()
    return (above / spread.clamp_min(1e-8)).clamp(0, 1).detach()


def agent_loss(weights: Float[Tensor, "B M"], rewards: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """Return the reward-weighted binary cross-entropy of the weights with 1, a scalar.

    ``mean_b r_b mean_m -log w_bm``.
    """
    smallest = torch.finfo(weights.dtype).tiny
    return (rewards * -weights.clamp_min(smallest).log().mean(dim=1)).mean()
