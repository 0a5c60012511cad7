"""Terms that train the adapter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.errors import UserError
from amtml_pl.losses.adapter import AdapterEntropy, AdapterL2, NllAdapterLoss
from amtml_pl.weighting.likelihood import mixture_likelihood_losses
from steps import make_step, with_gaps


@given(seed=st.integers(0, 100), M=st.integers(1, 4))
@settings(max_examples=20)
def test_the_likelihood_objective_is_the_log_of_the_mixtures_probability_of_the_label(seed, M):
    step = with_gaps(B=6, M=M, K=4, seed=seed, dtype=torch.float64)
    q = (step.weights[:, :, None] * step.teachers.logits.softmax(dim=2)).sum(dim=1)
    at_label = q.gather(1, step.labels[:, None])[:, 0]
    naive = torch.stack([-p.log() if p > 0 else p.new_zeros(()) for p in at_label]).mean()
    loss = NllAdapterLoss()(step)
    torch.testing.assert_close(loss, naive)
    if naive.requires_grad:
        gradients = (torch.autograd.grad(each, step.weights, retain_graph=True)[0] for each in (loss, naive))
        torch.testing.assert_close(*gradients)


def test_the_likelihood_objective_trains_the_weights_where_every_teacher_is_sure_of_another_class():
    logits, weights = torch.zeros(1, 2, 3), torch.tensor([[0.5, 0.5]], requires_grad=True)
    logits[0, :, 1] = torch.tensor([200.0, 300.0])  # p_y is exp(-200) and exp(-300): 0 in float32
    loss = mixture_likelihood_losses(logits, weights, torch.tensor([0])).sum()
    torch.testing.assert_close(loss, torch.tensor(200 + math.log(2)))
    loss.backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[-2.0, 0.0]]))


def test_a_teacher_of_weight_0_does_not_count_in_the_likelihood_objective():
    logits, weights = torch.zeros(2, 2, 3), torch.tensor([[0.0, 1.0]] * 2, requires_grad=True)
    logits[0, 1, 1] = 200.0
    loss = mixture_likelihood_losses(logits, weights, torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor([200.0, math.log(3)]))
    loss.sum().backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[0.0, -1.0]] * 2))


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.0, 1.0]])
def test_teachers_that_do_not_know_the_label_give_neither_loss_nor_gradient(weights):
    logits, weights = torch.zeros(2, 2, 3), torch.tensor([weights] * 2, requires_grad=True)
    logits[0, :, 0] = -torch.inf  # none of them knows the first sample's label
    logits[1, 1, 0] = -torch.inf  # the second does not know the second sample's
    loss = mixture_likelihood_losses(logits, weights, torch.tensor([0, 0]))
    w = weights.detach()[1, 0]
    torch.testing.assert_close(loss, torch.stack([w * 0, -(w / 3).log() if w > 0 else w]))
    loss.sum().backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[0.0, 0.0], [-2.0 if w > 0 else 0.0, 0.0]]))


def test_the_entropy_term_is_the_divergence_from_uniform_weights():
    step = make_step()
    w = step.weights
    naive = (w * (w * 3).log()).sum(1).mean()
    torch.testing.assert_close(AdapterEntropy()(step), naive)
    uniform = make_step(weights=torch.full((6, 3), 1 / 3, dtype=torch.float64))
    assert float(AdapterEntropy()(uniform).detach()) == pytest.approx(0, abs=1e-12)


def test_regularising_a_weighting_that_learns_nothing_is_refused():
    with pytest.raises(UserError, match="needs a weighting with trainable parameters"):
        AdapterL2()(make_step())
