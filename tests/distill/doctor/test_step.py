"""The doctor: injected faults are found by name, and nothing is found where nothing is wrong."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from amtml_pl.distill.doctor.step import check_step
from amtml_pl.distill.published.losses import PublishedRelationLoss
from amtml_pl.distill.step import DistillModule
from amtml_pl.losses.adapter import AdapterEntropy, JointAdapterLoss
from amtml_pl.losses.angle import AngleLoss
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.losses.dist import RelationalLogitLoss
from amtml_pl.losses.hint import HintLoss
from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.standardize import standardized
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.classifier_head import ClassifierHead
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.models.wide_resnet import WideResNet
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.types import Batch
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.confidence import ConfidenceWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from steps import CLASSES as K
from steps import STAGES, small_module, small_network

pytestmark = pytest.mark.numbers


def module_of(terms, weighting=None, teachers=("a", "b"), **how):
    return small_module(terms, weighting or UniformWeighting(), teachers=teachers, **how)


def batch(B=8):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(B, 3, 32, 32, generator=generator)
    return Batch(images, torch.arange(B) % K, torch.arange(B), 1, "train")


def healthy_terms():
    return {
        "ce": CrossEntropy(), "kd": SoftTargetLoss(4.0), "hint": HintLoss(STAGES),
        "adapter": JointAdapterLoss(4.0), "adapter_entropy": AdapterEntropy(),
    }  # fmt: skip


def plain_terms():
    return {"ce": CrossEntropy(), "kd": SoftTargetLoss(4.0)}


def names(found):
    return [finding.name for finding in found.findings]


def test_a_healthy_step_has_no_finding_and_the_shares_of_its_gradient_sum_to_one():
    found = check_step(adaptive(healthy_terms()), batch())
    assert names(found) == []
    assert list(found.gradient_share) == ["ce", "kd", "hint"]
    assert sum(found.gradient_share.values()) == pytest.approx(1)


def test_the_check_changes_nothing():
    module = adaptive(healthy_terms()).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    check_step(module, batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.spent.teacher_seconds == 0


def changed(change):
    """Return a soft-target term with another value."""
    forward = {"forward": lambda self, step: change(SoftTargetLoss.forward(self, step), step)}
    return type("Changed", (SoftTargetLoss,), forward)(4.0)


def weighting(weigh):
    """Return a weighting that calls a function of student and labels."""
    forward = {"forward": lambda self, student, teachers, labels: weigh(student, labels)}
    return type("Own", (UniformWeighting,), forward)()


def detached():
    return {"ce": CrossEntropy(), "kd": changed(lambda value, step: value.detach())}


def test_a_detached_term_is_a_dead_term():
    found = check_step(module_of(detached()), batch())
    assert names(found) == ["dead-term/kd"]
    assert "gives no gradient to the student" in found.findings[0].what
    assert found.gradient_share["kd"] == 0


class WithoutTerms(DistillModule):
    def parameter_groups(self):
        yield from (group for group in super().parameter_groups() if group["name"] != "terms")


class ConstantWeights(AdapterEntropy):
    def forward(self, step):
        return super().forward(replace(step, weights=step.weights.detach()))


def middle(student, labels):
    """Return weights that a reversed list of teachers would not change."""
    return torch.tensor([0.2, 0.6, 0.2]).expand(len(labels), -1)


def adaptive(terms, **how):
    return module_of(terms, AdaptiveWeighting("layer3", "uniform", lr=None), **how)


def joint(**more):
    return {"kd": SoftTargetLoss(4.0), "adapter": JointAdapterLoss(4.0), **more}


def without_teachers():
    sgd = partial(torch.optim.SGD, lr=0.1)
    return DistillModule(small_network(), {"ce": CrossEntropy()}, {"ce": 1.0}, K, sgd)


def with_fixed_projections():
    module = adaptive(terms := healthy_terms())
    terms["hint"].projections.requires_grad_(False)
    return module


def with_frozen_student():
    module = module_of(plain_terms())
    module.student.requires_grad_(False)
    module.configure_optimizers = list
    return module


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: module_of(detached(), coef={"ce": 1.0, "kd": 0.0}), []),
        (lambda: adaptive(healthy_terms(), kind=WithoutTerms), ["in-no-optimizer/terms.hint"]),
        (with_fixed_projections, ["untrained-projections/hint"]),
        (with_frozen_student, ["dead-term/ce", "dead-term/kd"]),
        (lambda: adaptive(joint(entropy=ConstantWeights())), ["idle-for-the-weighting/entropy"]),
        (lambda: module_of(plain_terms(), weighting(middle), teachers="abc"),
         ["order-of-the-teachers/weighting"]),
        (lambda: adaptive(joint(), teachers=("a",)), []),
        (without_teachers, []),
    ],
    ids=[
        "a term without coefficient", "projections in no optimiser", "fixed projections", "a frozen student",
        "constant weights", "other weights in another order", "one teacher", "no teachers",
    ],
)  # fmt: skip
def test_parts_that_train_nothing_are_named_and_no_others(make, found):
    assert names(check_step(make(), batch())) == found


class Twice(DistillModule):
    def parameter_groups(self):
        yield from super().parameter_groups()
        yield {"name": "again", "params": [next(self.student.parameters())]}


class Teaching(DistillModule):
    def parameter_groups(self):
        yield from super().parameter_groups()
        yield {"name": "teachers", "params": list(self.teacher_source.teachers[0].network.parameters())}


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize(
    ("kind", "name"), [(Twice, "in-several-groups/student"), (Teaching, "foreign-parameters/teachers")]
)
def test_an_optimiser_that_holds_what_it_should_not_is_named(kind, name, monkeypatch):
    module = module_of(plain_terms(), kind=kind)
    monkeypatch.setattr(torch.optim.Optimizer, "add_param_group", unchecked_add)
    assert names(check_step(module, batch())) == [name]


def unchecked_add(self, group):
    """Add a group without torch's check for parameters in two groups."""
    self.param_groups.append({**self.defaults, **group})


def test_a_term_that_trains_what_it_does_not_claim_is_named():
    leaking = changed(lambda value, step: value + step.weights.square().mean())
    found = check_step(adaptive(joint(kd=leaking)), batch())
    assert names(found)[0] == "trains-another/kd"
    assert "got the weighting, expected only the student" in found.findings[0].what


@pytest.mark.parametrize(
    ("spoil", "name"),
    [(lambda t: t.network.train(), "teacher-in-training-mode/b"),
     (lambda t: t.network.requires_grad_(True), "trainable-teacher/b")],
)  # fmt: skip
def test_a_teacher_that_is_not_frozen_is_named(spoil, name):
    module = module_of(plain_terms())
    spoil(module.teacher_source.teachers[1])
    found = check_step(module, batch())
    assert names(found) == [name]
    assert found.replaced(expected_defects=("dead-term/kd",)).missing_defects == []  # the check ended early


def chosen(student, labels=None):
    return student.logits[:, :2].softmax(dim=1)


def chosen_but_equal(student, labels):
    logits = student.logits[:, :2]
    return (0 * logits * logits.detach() + logits - logits.detach()).softmax(dim=1)


@pytest.mark.parametrize(
    ("weigh", "name"),
    [(lambda student, labels: torch.ones(len(labels), 2), "unnormalised-weights"),
     (chosen, "weights-of-the-students-choice"), (chosen_but_equal, "weights-of-the-students-choice"),
     (lambda student, labels: torch.tensor([0.6, 0.4]).expand(len(labels), -1), "order-of-the-teachers")],
)  # fmt: skip
def test_weights_that_cannot_be_trusted_are_named(weigh, name):
    module = module_of(plain_terms(), weighting(weigh))
    assert f"{name}/weighting" in names(check_step(module, batch()))


class WeighingFeatures(DistillModule):
    def distill_step(self, batch):
        step = super().distill_step(batch)
        return replace(step, feature_weights=self.feature_weights(step))


def good(step):
    return torch.tensor([0.3, 0.7]).repeat(len(step.labels), 1)


def rows_off_by_as_much(step):
    weights = good(step)
    weights[2] *= 0.5
    weights[5] *= 1.5
    return weights


@pytest.mark.parametrize(
    ("feature_weights", "found"),
    [(good, []), (rows_off_by_as_much, ["unnormalised-weights/features"]),
     (lambda step: chosen(step.student), ["weights-of-the-students-choice/features"])],
)  # fmt: skip
def test_weights_of_the_features_that_cannot_be_trusted_are_named_too(feature_weights, found):
    terms = {"ce": CrossEntropy(), "regression": FeatureRegression(["layer3"])}
    module = module_of(terms, kind=WeighingFeatures)
    module.feature_weights = feature_weights
    assert names(check_step(module, batch())) == found


def with_heads(tap, side):
    """Return a module with a teacher's classifier of its map, pooled to a grid of that side."""
    torch.manual_seed(0)
    plain = WideResNet(10, 1, K)
    for part in plain.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
    teacher = Teacher("a", TappedNetwork(plain, mean=[0.5] * 3, std=[0.2] * 3, taps=[tap]), pool=side)
    module = module_of(plain_terms(), teachers=("a",))
    module.teacher_source = LiveTeachers([teacher])
    module.heads = {f"a/{tap}": ClassifierHead(deepcopy(plain), tap)}
    return module


def test_a_classifier_that_does_not_make_the_teachers_logits_of_its_map_is_named():
    assert names(check_step(with_heads("layer3", side=8), batch())) == []
    assert names(check_step(with_heads("relu", side=1), batch())) == []
    found = check_step(with_heads("layer3", side=1), batch())
    assert names(found) == ["not-the-teachers-classifier/a/layer3"]
    assert "hint_pool=null" in found.findings[0].what


def test_a_classifier_that_requires_gradients_is_named():
    module = with_heads("layer3", side=8)
    module.heads["a/layer3"].requires_grad_(True)
    assert names(check_step(module, batch())) == ["trainable-teacher/a/layer3"]


def test_a_compiled_network_is_examined_as_it_is_written():
    calls = []
    module = module_of(plain_terms())
    module.student.network.compile(backend=lambda graph, inputs: calls.append(graph) or graph.forward)
    assert names(check_step(module, batch())) == []
    assert calls == []


class OnLogits(AngleLoss):
    def forward(self, step):
        return super().forward(replace(step, student=replace(step.student, logits=step.student.logits * 2)))


class StudentAsItIs(PerTeacherSoftTargetLoss):
    """Standardises the teachers and not the student."""

    def forward(self, step):
        return super().forward(replace(step, teachers=step.teachers.map(standardized)))


class Exploding(LossTerm):
    def forward(self, step):
        return step.student.logits.sum() * float("inf")


@pytest.mark.parametrize(
    ("term", "found"),
    [(AngleLoss(4.0), []), (OnLogits(4.0), ["not-zero-at-the-targets/term"]),
     *[(SoftTargetLoss(4.0, standardize=order), []) for order in ("teachers", "mixture")],
     (PerTeacherSoftTargetLoss(4.0), []), (PerTeacherSoftTargetLoss(4.0, standardize=True), []),
     (StudentAsItIs(4.0), ["not-zero-at-the-targets/term"]), (RelationalLogitLoss(4.0), []),
     (PublishedRelationLoss(4.0), ["not-zero-at-the-targets/term"]),
     (changed(lambda value, _: value + torch.where(value.detach() < 1e-4, torch.nan, 0.0)),
      ["not-zero-at-the-targets/term"]),
     (changed(lambda value, _: value + torch.inf), ["not-finite-value/term"]),
     (Exploding(), ["not-finite-value/term", "not-finite-gradient/term"])],
    ids=lambda given: type(given).__name__ if isinstance(given, LossTerm) else "",
)  # fmt: skip
def test_a_term_with_a_wrong_value_or_gradient_is_named(term, found):
    assert names(check_step(module_of({"kd": SoftTargetLoss(4.0), "term": term}), batch())) == found


def test_a_term_that_outweighs_the_rest_a_hundredfold_is_warned_of():
    found = check_step(module_of(plain_terms(), coef={"ce": 1e6, "kd": 1.0}), batch())
    assert names(found) == []
    [warning] = found.warnings
    assert "gradient from the loss term 'ce' is" in warning


def test_teachers_that_do_not_know_every_class_have_no_finding():
    module = module_of(plain_terms(), ConfidenceWeighting())
    maps = ([0, 1, None, None], [None, 1, 2, 3])
    teachers = zip(module.teacher_source.teachers, maps, strict=True)
    module.teacher_source = LiveTeachers([Teacher(t.name, t.network, given) for t, given in teachers])
    assert names(check_step(module, batch())) == []
