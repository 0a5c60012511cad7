"""The gate: weights per sample from the teachers' outputs, fitted to held-out images."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.types import TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.gate import RIDGE, Gate, GatedWeighting, gate_inputs
from amtml_pl.weighting.held_out import held_out_weights
from amtml_pl.weighting.likelihood import mixture_likelihood_losses
from steps import make_step
from weighting.schemes import held_out, weigh

SHAPES = TensorShapes(classes=4, teachers=("t0", "t1", "t2"), student={"last": (8, 4, 4)})


def specialists(N, seed):
    """Return logits of two teachers that are sure within their half of the classes, and unsure outside."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (N,), generator=generator)
    logits = torch.randn(N, 2, 4, generator=generator)
    own = (labels[:, None] // 2 == torch.arange(2)).float()
    return logits + 6 * own[:, :, None] * F.one_hot(labels, 4)[:, None], labels


def objective(gate, logits, labels):
    loss = mixture_likelihood_losses(logits.double(), gate.double()(logits.double()), labels).mean()
    return loss + RIDGE * gate.matrix.square().sum()


def test_a_gate_sends_new_images_to_the_specialist_that_was_trained_on_them():
    gate = Gate(2, 4)
    gate.fit(*specialists(400, seed=0))
    logits, labels = specialists(400, seed=1)
    weights = gate(logits)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(400))
    assert (weights.argmax(dim=1) == labels // 2).float().mean() > 0.95
    constant = held_out_weights(*specialists(400, seed=0)).expand(400, 2)
    found, alone = (mixture_likelihood_losses(logits, w, labels).mean() for w in (weights, constant))
    assert found < 0.7 * alone


@pytest.mark.parametrize("name", ["matrix", "offset"])
def test_a_fitted_gate_is_where_its_objective_has_no_slope(name):
    gate, (logits, labels) = Gate(3, 4), held_out()
    gate.fit(logits, labels)
    value = objective(gate, logits, labels)
    parameter = getattr(gate, name)
    for sign in (-1, 1):
        for place in range(parameter.numel()):
            moved = parameter.clone()
            moved.view(-1)[place] += sign * 0.02
            setattr(gate, name, moved)
            assert objective(gate, logits, labels) >= value - 1e-6
            setattr(gate, name, parameter)


def test_inputs_are_the_logits_and_their_logsumexp_and_unknown_classes_count_as_zero():
    logits = torch.tensor([[[1.0, -torch.inf, 2.0], [0.5, 0.0, -1.0]]])
    sums = [torch.tensor(row).exp().sum().log().item() for row in ([1.0, 2.0], [0.5, 0.0, -1.0])]
    expected = torch.tensor([[1.0, 0.0, 2.0, sums[0], 0.5, 0.0, -1.0, sums[1]]])
    torch.testing.assert_close(gate_inputs(logits), expected)


def test_classes_that_teachers_do_not_know_and_equal_inputs_leave_finite_weights():
    logits, labels = held_out()
    logits[:, 0, 2:], logits[:, 1, :2] = -torch.inf, -torch.inf
    logits[:, 2] = 0.0
    gate = Gate(3, 4)
    gate.fit(logits, labels)
    assert gate(logits).isfinite().all()
    nobody = torch.full((5, 3, 4), -torch.inf)
    nobody[:, :, 1] = 0.0
    gate.fit(nobody, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(gate(nobody), torch.full((5, 3), 1 / 3))


def test_a_gate_is_checkpointed_and_is_the_prior_that_an_adapter_starts_from():
    step = make_step(K=4, taps={"last": (8, 4, 4)})
    alone, prior = GatedWeighting(), AdaptiveWeighting("last", "gate", lr=None)
    for scheme in (alone, prior):
        scheme.build(SHAPES)
        torch.testing.assert_close(scheme.gate(step.teachers.logits), torch.full((6, 3), 1 / 3))
        scheme.fit_to_held_out(*held_out())
        assert "gate.matrix" in scheme.state_dict()
    assert not [*alone.parameters()]
    torch.nn.init.zeros_(prior.theta)
    torch.testing.assert_close(weigh(prior, step), weigh(alone, step))
    torch.testing.assert_close(prior.prior(step.teachers), weigh(alone, step))
    assert AdaptiveWeighting("last", "uniform", lr=None).prior(step.teachers) is None
