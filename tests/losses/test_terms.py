"""Properties of every loss term: which inputs get a gradient, where it is zero, which errors it raises."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.distill.published.losses import PublishedSoftTargetLoss
from amtml_pl.errors import UserError
from amtml_pl.losses.adapter import AdapterEntropy, AdapterL2, JointAdapterLoss, NllAdapterLoss
from amtml_pl.losses.angle import AngleLoss
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.dkd import DecoupledLoss
from amtml_pl.losses.hint import HintLoss, hint_loss, stage_per_teacher
from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.models.pooling import pool_to_same_size
from amtml_pl.types import ModelOutputs, OfferedFeatures, TensorShapes
from steps import make_step

pytestmark = pytest.mark.numbers

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(2, 12))


def test_cross_entropy_is_the_mean_negative_log_probability_of_the_label():
    step = make_step()
    naive = -sum(step.student.logits.log_softmax(1)[b, y] for b, y in enumerate(step.labels)) / 6
    torch.testing.assert_close(CrossEntropy()(step), naive)


def test_label_smoothing_outside_its_range_is_refused():
    with pytest.raises(UserError, match=r"label_smoothing is 1.0; expected a number in \[0, 1\)"):
        CrossEntropy(label_smoothing=1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("term", [SoftTargetLoss, AngleLoss, JointAdapterLoss])
def test_a_temperature_that_is_not_positive_is_refused(term, temperature):
    with pytest.raises(UserError, match=r"temperature is .* expected a number above 0"):
        term(temperature)


@given(SIZES, st.floats(0.5, 20), st.sampled_from(["probabilities", "logits"]))
@settings(max_examples=30)
def test_integrated_soft_targets_are_distributions_and_equal_a_naive_loop(size, T, mixture):
    B, M, K = size
    step = make_step(B, M, K)
    q = integrated_soft_targets(step.teachers.logits, step.weights, T, mixture)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(B))
    for b in range(B):
        z, w = step.teachers.logits[b], step.weights[b]
        if mixture == "probabilities":
            naive = sum(w[m] * (z[m] / T).softmax(0) for m in range(M))
        else:
            naive = (sum(w[m] * z[m] for m in range(M)) / T).softmax(0)
        torch.testing.assert_close(q[b], naive)


def test_a_student_that_equals_its_target_has_no_loss_and_no_angle():
    step = make_step(M=1, weights=torch.ones(6, 1, dtype=torch.float64), dtype=torch.float64)
    perfect = replace(step, student=ModelOutputs(step.teachers.logits[:, 0]))
    for term in (SoftTargetLoss(4.0), AngleLoss(4.0)):
        assert float(term(perfect)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("term", "trains_the_student"),
    [(SoftTargetLoss(5.0), True), (AngleLoss(5.0), True), (JointAdapterLoss(5.0), False),
     (NllAdapterLoss(), False)],
)  # fmt: skip
def test_a_term_trains_either_the_student_or_the_weights(term, trains_the_student):
    step = make_step()
    term(step).backward()
    gradients = step.student.logits.grad, step.weights.grad
    trained, other = gradients if trains_the_student else gradients[::-1]
    assert trained.abs().sum() > 0
    assert other is None


def test_the_likelihood_objective_survives_teachers_that_are_sure_of_another_class():
    step = make_step(K=3)
    wrong = F.one_hot((step.labels + 1) % 3, 3).float()[:, None].expand(-1, 3, -1) * 1e4
    step = replace(step, teachers=replace(step.teachers, logits=wrong.contiguous()))
    loss = NllAdapterLoss()(step)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(step.weights.grad).all()


@pytest.mark.parametrize(
    "term",
    [SoftTargetLoss(5.0), AngleLoss(5.0), JointAdapterLoss(0.1), NllAdapterLoss(), AdapterEntropy(),
     PublishedSoftTargetLoss(0.1), PerTeacherSoftTargetLoss(4.0), DecoupledLoss(4.0, epochs=12)],
)  # fmt: skip
@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("B", [1, 5])
def test_equal_and_saturated_logits_give_finite_losses_and_gradients(term, scale, B):
    scores = torch.tensor([[120.0, 0.0, -1e3]]).repeat(B, 1).requires_grad_()
    step = make_step(B)
    logits = (step.student.logits.detach() * scale).requires_grad_()
    teachers = replace(step.teachers, logits=step.teachers.logits * scale)
    saturated = replace(
        step, student=ModelOutputs(logits), teachers=teachers, weights=torch.softmax(scores * scale, dim=1)
    )
    loss = term(saturated)
    loss.backward()
    assert torch.isfinite(loss)
    received = [tensor.grad for tensor in (logits, scores) if tensor.grad is not None]
    assert received
    assert all(torch.isfinite(gradient).all() for gradient in received)


def test_the_entropy_term_is_the_divergence_from_uniform_weights():
    step = make_step()
    w = step.weights
    naive = (w * (w * 3).log()).sum(1).mean()
    torch.testing.assert_close(AdapterEntropy()(step), naive)
    uniform = make_step(weights=torch.full((6, 3), 1 / 3, dtype=torch.float64))
    assert float(AdapterEntropy()(uniform).detach()) == pytest.approx(0, abs=1e-12)


def test_a_term_that_needs_teachers_is_refused_without_any():
    step = replace(make_step(), teachers=None, weights=None)
    with pytest.raises(UserError, match=r"needs teachers, and the run has none(.|\n)*teacher=\[resnet32"):
        SoftTargetLoss(5.0)(step)


def test_regularising_a_weighting_that_learns_nothing_is_refused():
    with pytest.raises(UserError, match="the chosen one learns nothing"):
        AdapterL2()(make_step())


def test_distances_do_not_see_scale_and_their_gradient_is_right_and_finite_where_samples_coincide():
    generator = torch.Generator().manual_seed(3)
    points, other = (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (3, 4))
    torch.testing.assert_close(distance_loss(points, other), distance_loss(7 * points, 0.1 * other))
    assert torch.autograd.gradcheck(lambda p: distance_loss(p, other), points.requires_grad_())
    same = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    distance_loss(same, other).backward()
    assert torch.isfinite(same.grad).all()


@pytest.mark.parametrize(
    ("teachers", "stages", "expected"),
    [(1, 3, [2]), (2, 3, [1, 2]), (3, 3, [0, 1, 2]), (5, 3, [0, 1, 1, 2, 2]), (3, 1, [0, 0, 0])],
)
def test_teachers_are_spread_over_the_stages_and_end_at_the_last(teachers, stages, expected):
    assert stage_per_teacher(teachers, stages) == expected


def hint_step():
    taps = {"layer1": (4, 8, 8), "layer2": (6, 4, 4), "layer3": (8, 2, 2)}
    hints = {"a/last": (16, 2, 2), "b/last": (12, 2, 2), "c/last": (8, 1, 1)}
    shapes = TensorShapes(5, ("a", "b", "c"), taps, hints, dict.fromkeys("abc", OfferedFeatures("last")))
    return make_step(taps=taps, hints=hints), shapes


def test_hint_projections_and_student_stages_all_receive_a_gradient():
    step, shapes = hint_step()
    term = HintLoss(["layer1", "layer2", "layer3"])
    assert term.hints(shapes.offered) == ("a/last", "b/last", "c/last")
    term.build(shapes)
    assert term.pairs == (("a/last", "layer1"), ("b/last", "layer2"), ("c/last", "layer3"))
    term(step).backward()
    assert len(list(term.parameters())) == 3
    for parameter in [*term.parameters(), *step.student.features.values()]:
        assert parameter.grad.abs().sum() > 0


def test_the_hint_loss_is_the_mean_over_the_groups_that_are_named():
    step, shapes = hint_step()
    term = HintLoss([], groups={"c/last": "layer2", "a/last": "layer3"})
    assert term.student_taps() == ("layer2", "layer3")
    term.build(shapes)
    expected = [
        hint_loss(*pool_to_same_size(step.student.features[stage], step.teachers.hints[name]), projection)
        for (name, stage), projection in zip(term.pairs, term.projections, strict=True)
    ]
    torch.testing.assert_close(term(step), torch.stack(expected).mean())


def test_a_hint_term_without_any_hint_is_refused():
    with pytest.raises(UserError, match=r"no teacher feature to imitate(.|\n)*teacher.resnet56.hint=layer3"):
        HintLoss(["layer1"]).build(TensorShapes(classes=5, teachers=("a",)))
