"""Terms that train the adapter."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.errors import UserError
from amtml_pl.losses.adapter import AdapterEntropy, AdapterL2, NllAdapterLoss
from steps import make_step


def test_the_likelihood_objective_survives_teachers_that_are_sure_of_another_class():
    step = make_step(K=3)
    wrong = F.one_hot((step.labels + 1) % 3, 3).float()[:, None].expand(-1, 3, -1) * 1e4
    step = replace(step, teachers=replace(step.teachers, logits=wrong.contiguous()))
    loss = NllAdapterLoss()(step)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(step.weights.grad).all()


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
