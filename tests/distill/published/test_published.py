"""The published notebook, defect by defect."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amtml_pl.distill.published.aekd import PublishedAekdWeighting, support_vector_weights
from amtml_pl.distill.published.losses import (
    PublishedAdapterL2,
    PublishedCrossEntropy,
    PublishedHintLoss,
    element_mean_soft_target_loss,
)
from amtml_pl.distill.published.schedule import two_stage_schedule
from amtml_pl.distill.published.student import published_student
from amtml_pl.distill.published.weighting import PublishedAdaptiveWeighting
from amtml_pl.types import OfferedFeatures, TensorShapes
from amtml_pl.weighting.aekd import logit_gradients
from golden_steps import assert_golden, logit_step, teachers_of, weighted
from steps import make_step

pytestmark = pytest.mark.numbers


def test_its_cross_entropy_is_taken_at_the_temperature():
    step = make_step()
    tempered = F.log_softmax(step.student.logits / 5, dim=1)
    torch.testing.assert_close(PublishedCrossEntropy(5.0)(step), F.cross_entropy(tempered, step.labels))


def test_its_weights_carry_a_gradient_to_the_students_features_and_are_drawn_from_seed_one():
    step = make_step(taps={"layer3": (8, 4, 4)})
    scheme = PublishedAdaptiveWeighting("layer3", lr=None)
    scheme.build(TensorShapes(classes=5, teachers=step.teachers.names, student={"layer3": (8, 4, 4)}))
    scheme(step.student, step.teachers, step.labels)[:, 0].sum().backward()
    assert step.student.features["layer3"].grad.abs().sum() > 0
    drawn = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scheme.theta.detach(), drawn)


def test_its_hint_transforms_are_fixed_tiny_and_end_with_the_first_stage():
    term, names, shape = PublishedHintLoss(epochs=280), ("t0", "t1", "t2"), {"layer2": (32, 8, 8)}
    hints = {f"{name}/layer2": (32, 8, 8) for name in names}
    offered = dict.fromkeys(names, OfferedFeatures("layer3", ("layer1", "layer2", "layer3")))
    assert term.hints(offered) == tuple(hints)
    term.build(TensorShapes(5, names, student=shape, hints=hints, offered=offered))
    assert list(term.parameters()) == []
    assert all(buffer.abs().max() <= 0.005 for buffer in term.buffers())
    assert len(list(term.buffers())) == 3
    first = term(make_step(taps=shape, hints=hints, epoch=79))
    torch.testing.assert_close(first, torch.tensor(3 / 32), rtol=0.05, atol=0)  # A u(F) is about 0
    assert term(make_step(taps=shape, hints=hints, epoch=80)) == 0


def test_its_penalty_is_the_squared_norm_in_the_first_stage_only():
    first = replace(make_step(epoch=79), weighting_norm=torch.tensor(9.35))
    assert PublishedAdapterL2()(first) == 9.35
    assert PublishedAdapterL2()(replace(first, epoch=80)) == 0


def test_its_schedule_drops_at_the_epochs_of_both_stages_and_freezes_the_adapter():
    student, factor = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"name": "student", "params": [student]}, {"name": "weighting", "params": [factor]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = two_stage_schedule(optimizer)
    rates = []
    for epoch in range(280):
        rates.append([group["lr"] for group in optimizer.param_groups])
        student.grad, factor.grad = torch.ones(2), torch.ones(2)
        if epoch == 80:
            frozen = factor.detach().clone()
        optimizer.step()
        schedule.step()
    own, adapter = zip(*rates, strict=True)
    drops = [e for e in range(1, 280) if own[e] < own[e - 1]]
    assert drops == [80 + 99, 80 + 149]
    assert math.isclose(own[-1], 0.001)
    assert [e for e in range(1, 280) if adapter[e] < adapter[e - 1]] == [39, 69, 80]
    torch.testing.assert_close(factor.detach(), frozen, rtol=0, atol=0)


def test_its_student_starts_with_small_convolutions_and_batch_norm_that_has_seen_noise():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )
    classifier = network[4].weight.clone()
    published_student(network)
    assert network[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert network[1].weight.mean().item() == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(network[4].weight, classifier)
    assert network[1].num_batches_tracked == 1
    assert network[1].running_mean.abs().sum() > 0


def test_the_published_soft_target_loss_with_plain_and_with_tempered_cross_entropy(golden):
    given, expected = golden("kd_loss")
    logits = given["student_logits"].double().requires_grad_()
    T, alpha, labels = given["T"], given["alpha"], given["labels"]
    kd = element_mean_soft_target_loss(logits, given["target"], T)
    assert_golden(kd / (2 * T**2), expected["kl_mean_over_elements"])
    plain = alpha * kd + (1 - alpha) * F.cross_entropy(logits, labels)
    assert_golden(plain, expected["amtml_reference"])
    (gradient,) = torch.autograd.grad(plain, logits, retain_graph=True)
    assert_golden(gradient, expected["grad_amtml_reference"])
    tempered = alpha * kd + (1 - alpha) * F.cross_entropy(logits / T, labels)
    assert_golden(tempered, expected["amtml_reference_tempered_ce"])
    assert_golden(F.cross_entropy(logits / T, labels), expected["ce_at_T"])


def test_the_solver_of_the_published_aekd_stops_where_it_starts(golden):
    given, expected = golden("aekd")
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"]).mean(dim=1)
    gram = gradients @ gradients.T
    step = logit_step(given["student_logits"], teachers_of(given))
    step = weighted(step, PublishedAekdWeighting(given["T"], given["C"]))
    assert_golden(step.weights, expected["alpha_libsvm_unscaled"].expand(4, 3))
    assert_golden(support_vector_weights(1e-6 * gram, given["C"]), expected["alpha_libsvm_tiny"])
