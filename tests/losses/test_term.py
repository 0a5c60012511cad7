"""Properties of every term of conf/loss: gradients, limits, teachers."""

import inspect
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_class

from amtml_pl.errors import UserError
from amtml_pl.losses.attention import AttentionLoss
from amtml_pl.losses.balanced import BalancedLoss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.rkd import RelationLoss
from amtml_pl.losses.term import LossTerm
from amtml_pl.losses.triplets import TripletLoss
from amtml_pl.types import ModelOutputs, OfferedFeatures
from losses.terms import CHOICES, OWN_FILES, built, drawn_alike, node_of, term_of
from steps import make_step

DEFECTIVE = {"published_regression", "published_hint"}  # the doctor names them
TERMS = {name: term_of(name) for name in CHOICES}
WITH_TEACHERS = [name for name, term in TERMS.items() if term.needs_teachers]
OF_OUTPUTS = [name for name in WITH_TEACHERS if not TERMS[name].student_taps()]
OWN_WEIGHTS = {
    "balanced", "hint", "regression_aekd", "regression_confidence", "triplets", "published_hint",
    "published_regression", "published_regression_confidence", "published_triplets",
}  # fmt: skip
STEPS_WEIGHTS = [name for name in WITH_TEACHERS if name not in OWN_WEIGHTS | {"adapter_entropy"}]


@pytest.mark.parametrize("name", sorted({*CHOICES} - DEFECTIVE))
def test_a_term_trains_exactly_what_its_attributes_state(name):
    term, step = built(term_of(name))
    apart = replace(step, feature_weights=step.weights.detach().flip(1).requires_grad_())
    (drawn_alike(term, step) + drawn_alike(term, apart)).backward()
    read = [step.student.features[tap] for tap in term.student_taps()] or [step.student.logits]
    # A bias in front of batch norm changes nothing and has a gradient of rounding only.
    learned = [p for n, p in term.named_parameters() if not n.endswith("project.bias")]
    assert [is_trained(tensor) for tensor in read] == [term.trains_student] * len(read)
    assert all(is_trained(parameter) for parameter in learned)
    assert bool(learned) is term.learns
    weighting = is_trained(step.weights) or is_trained(step.weighting_norm)
    assert weighting is (term.is_weighting_objective or term.needs_learned_weighting)
    assert not is_trained(apart.feature_weights)


def is_trained(tensor):
    return tensor.grad is not None and bool(tensor.grad.abs().sum() > 0)


@pytest.mark.parametrize("name", ["rkd", "triplets", "published_triplets"])
def test_no_gradient_reaches_a_teacher_whose_samples_are_compared(name):
    """The other terms rely on `Step`: teachers' outputs come without gradients."""
    term, step = built(term_of(name))
    teachers = step.teachers.map(lambda tensor: tensor.clone().requires_grad_())
    term(replace(step, teachers=teachers)).backward()
    assert all(tensor.grad is None for tensor in (teachers.logits, *teachers.hints.values()))


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize(("B", "M"), [(1, 3), (2, 1), (3, 8)])
def test_short_batches_and_one_or_eight_teachers_give_a_number_and_finite_gradients(name, B, M):
    term, step = built(term_of(name), B, M)
    assert_finite_with_gradients(term, step, term(step))


@pytest.mark.parametrize("name", CHOICES)
def test_outputs_rounded_to_half_precision_give_almost_the_same_number(name):
    term, step = built(term_of(name))
    student = step.student.map(lambda tensor: tensor.detach().bfloat16().float().requires_grad_())
    teachers = step.teachers.map(lambda tensor: tensor.bfloat16().float())
    rounded = replace(step, student=student, teachers=teachers)
    values = [drawn_alike(term, each) for each in (step, rounded)]
    torch.testing.assert_close(*values, rtol=0.05, atol=0)
    assert_finite_with_gradients(term, rounded, values[1])


@pytest.mark.parametrize("name", OF_OUTPUTS)
@pytest.mark.parametrize("scale", [0.0, 1e4])
@pytest.mark.parametrize("B", [1, 5])
def test_equal_and_saturated_logits_give_finite_losses_and_gradients(name, scale, B):
    scores = torch.tensor([[120.0, 0.0, -1e3]]).repeat(B, 1).requires_grad_()
    term, step = built(term_of(name, temperature=0.1), B)
    step.student.logits.data *= scale
    step.teachers.logits.mul_(scale)
    saturated = replace(step, weights=torch.softmax(scores * scale, dim=1))
    assert_finite_with_gradients(term, saturated, term(saturated))
    assert scores.grad is None or torch.isfinite(scores.grad).all()


def assert_finite_with_gradients(term, step, value):
    assert torch.isfinite(value)
    if value.requires_grad:
        value.backward()
    read = [step.student.logits, *step.student.features.values(), *term.parameters()]
    assert all(torch.isfinite(tensor.grad).all() for tensor in read if tensor.grad is not None)


@pytest.mark.parametrize("name", STEPS_WEIGHTS)
def test_one_hot_weights_leave_the_single_teachers_loss(name):
    term, step = built(term_of(name))
    chosen = all_weight_on_the_second(step)
    torch.testing.assert_close(term(chosen), term(others_replaced(chosen)))


@pytest.mark.parametrize("name", sorted(OWN_WEIGHTS - {"published_hint"}))  # its transforms are almost 0
def test_a_term_with_own_votes_or_weights_ignores_the_steps_weights(name):
    term, step = built(term_of(name))
    chosen = all_weight_on_the_second(step)
    torch.testing.assert_close(drawn_alike(term, chosen), drawn_alike(term, step), rtol=0, atol=0)
    assert (drawn_alike(term, others_replaced(chosen)) - drawn_alike(term, chosen)).abs() > 1e-4


@pytest.mark.parametrize("name", WITH_TEACHERS)
def test_a_term_that_needs_teachers_is_refused_without_any(name):
    term, step = built(term_of(name))
    with pytest.raises(UserError, match=r"needs teachers, but the run has none(.|\n)*teacher=\[resnet32"):
        term(replace(step, teachers=None, weights=None))


@pytest.mark.parametrize("name", ["kd", "angle"])
def test_a_student_that_equals_its_target_has_no_loss(name):
    assert TERMS[name].vanishes_at_targets
    step = make_step(M=1, weights=torch.ones(6, 1, dtype=torch.float64), dtype=torch.float64)
    perfect = replace(step, student=ModelOutputs(step.teachers.logits[:, 0]))
    assert float(term_of(name)(perfect)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["kd", "kd_standardized", "kd_each", "dkd", "dist"])
def test_a_student_that_equals_teachers_who_agree_has_no_loss(name):
    assert TERMS[name].vanishes_where_teachers_agree
    step = make_step(M=3, dtype=torch.float64)
    alike = replace(step.teachers, logits=step.teachers.logits[:, :1].expand(-1, 3, -1))
    perfect = replace(step, teachers=alike, student=ModelOutputs(alike.logits[:, 0]))
    assert float(term_of(name)(perfect)) == pytest.approx(0, abs=1e-5)  # dist adds 1e-8 to a divisor


@pytest.mark.parametrize(
    "name", ["kd", "angle", "adapter", "kd_each", "dkd", "dist", "nkd", "ofa", "published_ce"]
)
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(name, temperature):
    with pytest.raises(UserError, match=r"temperature is .* expected a number above 0"):
        term_of(name, temperature=temperature)


INFINITY, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "key", "wrong", "expected"),
    [("balanced", "drop", (-0.1, 1.5, NAN), "0 to 1"), ("dist", "beta", (-1.0, INFINITY), "0 or more"),
     ("dist", "gamma", (-1.0, NAN), "0 or more"), ("dkd", "warmup", (-0.1, 1.5), "0 to 1"),
     ("dkd", "alpha", (-1.0, INFINITY), "0 or more"), ("dkd", "beta", (-1.0, NAN), "0 or more"),
     ("nkd", "gamma", (-1.0, INFINITY), "0 or more"), ("ofa", "eps", (0.0, NAN), "a number above 0"),
     ("wkd_f", "decay", (-0.1, 1.5, NAN), "0 to 1"), ("wkd_f", "ratio", (-1.0, INFINITY), "0 or more"),
     ("wkd_f", "parts", (0,), "1 or more")],
)  # fmt: skip
def test_a_number_outside_its_range_is_refused(name, key, wrong, expected):
    for value in wrong:
        message = rf"loss\.{name}\.{key} is out of range \(got {value}, expected {expected}\)\.\nFix: "
        with pytest.raises(UserError, match=message):
            term_of(name, {key: value})


@pytest.mark.parametrize("name", ["attention", "ofa", "regression", "regression_fitnet", "srrl", "wkd_f"])
def test_a_student_without_the_stages_that_a_term_reads_is_refused(name):
    with pytest.raises(UserError) as refused:
        term_of(name, student={"stages": [], "hint": None})
    assert refused.value.what.endswith(
        "needs stages of the student (got student.stages=[], expected one or more modules)."
    )
    assert refused.value.fix == "set 'student.stages=[MODULE]'"


@pytest.mark.parametrize("name", ["balanced", "regression", "srrl", "wkd_f"])
def test_a_term_that_reads_the_last_map_needs_no_stages(name):
    assert term_of(name, student={"stages": [], "hint": "layer3"}).student_taps() == ("layer3",)


@pytest.mark.parametrize("file", OWN_FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_constructors_defaults_are_the_values_of_its_file(file):
    """Python and YAML users get the same; a published variant of a class has other values."""
    node = node_of(file)
    for name, parameter in inspect.signature(get_class(node["_target_"])).parameters.items():
        if parameter.default is not parameter.empty and not str(node[name]).startswith("${"):
            assert node[name] == parameter.default, name


def all_weight_on_the_second(step):
    return replace(step, weights=F.one_hot(torch.ones(6, dtype=torch.long), 3).float())


def others_replaced(step):
    """Return the step with other outputs of the first and the third teacher."""
    other = step.teachers.map(torch.clone)
    other.logits[:, [0, 2]] = 7.0
    for name, hint in other.hints.items():
        if not name.startswith("t1/"):
            hint.fill_(0.5)
    return replace(step, teachers=other)


@pytest.mark.parametrize(
    ("term", "key"),
    [(AttentionLoss(["layer1"]), "stages"), (BalancedLoss("layer3"), "hint"),
     (FeatureRegression(["layer1", "layer2"], stage=2), "stages"),
     (RelationLoss("layer3"), "hint"), (TripletLoss("layer3"), "hint"), (FeatureRegression(["a"]), "hint")],
    ids=lambda given: type(given).__name__ if isinstance(given, LossTerm) else given,
)  # fmt: skip
def test_a_teacher_without_stages_or_without_a_last_map_is_named(term, key):
    whole, lacking = OfferedFeatures("layer3", ("a", "b")), OfferedFeatures()
    with pytest.raises(UserError, match=rf"t1.*\n.*teacher\.t1\.{key}"):
        term.hints({"t0": whole, "t1": lacking})


@pytest.mark.parametrize("name", sorted({*WITH_TEACHERS} - DEFECTIVE))
def test_classes_that_a_teacher_does_not_know_leave_value_and_gradients_finite(name):
    term, step = built(term_of(name))
    logits = step.teachers.logits.clone()
    logits[:, 0, 2:], logits[:, 1, :3] = -torch.inf, -torch.inf
    step = replace(step, teachers=replace(step.teachers, logits=logits))
    value = drawn_alike(term, step)
    value.backward()
    read = [step.student.logits, *step.student.features.values(), step.weights, *term.parameters()]
    assert torch.isfinite(value)
    assert all(torch.isfinite(tensor.grad).all() for tensor in read if tensor.grad is not None)
