"""The doctor: injected faults are found by name, and nothing is found where nothing is wrong."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from amtml_pl.distill import DistillModule
from amtml_pl.examination.step import examine
from amtml_pl.features import TappedNetwork, tap_shapes
from amtml_pl.losses.adapter import AdapterEntropy, JointAdapterLoss
from amtml_pl.losses.cross_entropy import CrossEntropy
from amtml_pl.losses.hint import HintLoss
from amtml_pl.losses.soft_targets import SoftTargetLoss
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.released.losses import ReleasedRelationLoss
from amtml_pl.examination.teachers import agreement, examine_teacher, teacher_statements
from amtml_pl.teachers import LiveTeachers, Teacher
from amtml_pl.types import Batch, OfferedFeatures, TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.uniform import UniformWeighting

K = 4


def network(taps=()):
    return TappedNetwork(CifarResNet(8, K, [4, 4, 8, 8]), mean=[0.5] * 3, std=[0.2] * 3, taps=taps)


def module_of(terms, weighting=None, coef=None, kind=DistillModule):
    torch.manual_seed(0)
    student = network(("layer1", "layer2", "layer3"))
    source = LiveTeachers([Teacher(name, network(("layer3",))) for name in ("a", "b")])
    offered = dict.fromkeys(source.names, OfferedFeatures("layer3"))
    hints = {f"{name}/layer3": (8, 8, 8) for name in source.names}
    shapes = TensorShapes(K, source.names, tap_shapes(student, 32)[1], hints, offered)
    weighting = weighting or UniformWeighting()
    for part in (*terms.values(), weighting):
        part.build(shapes)
    coef = coef or dict.fromkeys(terms, 1.0)
    make = lambda groups: torch.optim.SGD(groups, lr=0.1)  # noqa: E731
    return kind(student, terms, coef, K, make, teachers=source, weighting=weighting)


def batch(B=8):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(B, 3, 32, 32, generator=generator)
    return Batch(images, torch.arange(B) % K, torch.arange(B), 1, "train")


def healthy_terms():
    return {
        "ce": CrossEntropy(), "kd": SoftTargetLoss(4.0), "hint": HintLoss(["layer1", "layer2", "layer3"]),
        "adapter": JointAdapterLoss(4.0), "adapter_entropy": AdapterEntropy(),
    }  # fmt: skip


def names(found):
    return [finding.name for finding in found.findings]


def test_a_healthy_step_has_no_finding_and_the_shares_of_its_gradient_sum_to_one():
    found = examine(module_of(healthy_terms(), AdaptiveWeighting("layer3")), batch())
    assert names(found) == []
    assert list(found.share) == ["ce", "kd", "hint"]
    assert sum(found.share.values()) == pytest.approx(1)


def test_nothing_is_changed_by_looking():
    module = module_of(healthy_terms(), AdaptiveWeighting("layer3"))
    module.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    examine(module, batch())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.teacher_seconds == 0


class Detached(SoftTargetLoss):
    def forward(self, step):
        return super().forward(step).detach()


def test_a_detached_term_is_a_dead_term():
    found = examine(module_of({"ce": CrossEntropy(), "kd": Detached(4.0)}), batch())
    assert names(found) == ["dead-term/kd"]
    assert "gives the student no gradient" in found.findings[0].what
    assert found.share["kd"] == 0


def test_a_term_without_coefficient_is_not_judged():
    module = module_of({"ce": CrossEntropy(), "kd": Detached(4.0)}, coef={"ce": 1.0, "kd": 0.0})
    assert names(examine(module, batch())) == []


class Forgetful(DistillModule):
    def parameter_groups(self):
        for group in super().parameter_groups():
            if group["name"] != "terms":
                yield group


def test_a_projection_missing_from_the_optimiser_is_named():
    found = examine(module_of(healthy_terms(), AdaptiveWeighting("layer3"), kind=Forgetful), batch())
    assert names(found) == ["in-no-optimizer/terms.hint"]


def test_projections_that_are_not_trained_are_named():
    terms = {
        "ce": CrossEntropy(),
        "kd": SoftTargetLoss(4.0),
        "hint": HintLoss(["layer1", "layer2", "layer3"]),
    }
    module = module_of(terms)
    terms["hint"].projections.requires_grad_(False)
    assert names(examine(module, batch())) == ["untrained-projections/hint"]


@pytest.mark.parametrize(
    ("spoil", "name"),
    [(lambda t: t.network.train(), "teacher-in-training-mode/b"),
     (lambda t: t.network.requires_grad_(True), "trainable-teacher/b")],
)  # fmt: skip
def test_a_teacher_that_is_not_frozen_is_named(spoil, name):
    module = module_of({"ce": CrossEntropy(), "kd": SoftTargetLoss(4.0)})
    spoil(module.teacher_source.teachers[1])
    assert names(examine(module, batch())) == [name]


class Doubled(UniformWeighting):
    def forward(self, student, teachers, labels):
        return 2 * super().forward(student, teachers, labels)


class Chosen(UniformWeighting):
    def forward(self, student, teachers, labels):
        return student.logits[:, :2].softmax(dim=1)


class Listed(UniformWeighting):
    def forward(self, student, teachers, labels):
        return torch.tensor([0.6, 0.4]).expand(len(labels), -1)


@pytest.mark.parametrize(
    ("weighting", "name"),
    [(Doubled(), "unnormalised-weights/weighting"), (Chosen(), "weights-of-the-students-choice/weighting"),
     (Listed(), "order-of-the-teachers/weighting")],
)  # fmt: skip
def test_weights_that_cannot_be_trusted_are_named(weighting, name):
    assert name in names(
        examine(module_of({"ce": CrossEntropy(), "kd": SoftTargetLoss(4.0)}, weighting), batch())
    )


def test_a_term_that_a_perfect_student_cannot_satisfy_is_named():
    terms = {"ce": CrossEntropy(), "relation": ReleasedRelationLoss(4.0)}
    assert names(examine(module_of(terms), batch())) == ["not-zero-at-the-targets/relation"]


class Exploding(LossTerm):
    def forward(self, step):
        return step.student.logits.sum() * float("inf")


def test_a_gradient_that_is_not_a_number_is_named():
    terms = {"kd": SoftTargetLoss(4.0), "broken": Exploding()}
    assert names(examine(module_of(terms), batch())) == ["not-finite-gradient/broken"]


def test_a_term_that_outweighs_the_rest_a_hundredfold_is_warned_of():
    terms = {"ce": CrossEntropy(), "kd": SoftTargetLoss(4.0)}
    found = examine(module_of(terms, coef={"ce": 1e6, "kd": 1.0}), batch())
    assert names(found) == []
    assert len(found.warnings) == 1
    assert "'ce' outweighs the rest" in found.warnings[0]


# ---- teachers


class Reads(nn.Module):
    """Names the class that the mean colour says, as long as it is normalised as it was trained."""

    def forward(self, images):
        level = images.mean(dim=(1, 2, 3))[:, None]
        return -(level - torch.tensor([-1.5, -0.5, 0.5, 1.5])).abs()


def coloured(N=256):
    labels = torch.arange(N) % 4
    generator = torch.Generator().manual_seed(0)
    level = 0.5 + 0.2 * (labels - 1.5) + 0.02 * torch.randn(N, generator=generator)
    return level.view(N, 1, 1, 1).expand(N, 3, 4, 4).contiguous(), labels


def statements(mean=0.5, std=0.2, class_map=None):
    teacher = Teacher("t", TappedNetwork(Reads(), mean=[mean] * 3, std=[std] * 3), class_map)
    found = examine_teacher(teacher, *coloured(), {"the data set's": ([0.5] * 3, [0.2] * 3)})
    torch.testing.assert_close(teacher.network.mean.flatten(), torch.full((3,), mean))
    return [finding.name for finding in teacher_statements("t", found)], found


def test_a_teacher_that_is_what_it_should_be_has_no_finding():
    found, examination = statements()
    assert found == []
    assert examination["accuracy"] > 0.95


def test_a_wrong_mean_and_std_are_found_and_the_right_ones_named():
    found, examination = statements(mean=0.2, std=0.4)
    assert found == ["wrong-mean-and-std/t"]
    assert examination["accuracy_with"]["the data set's"] > 0.95


def test_a_shuffled_class_map_is_found():
    assert statements(class_map=(1, 0, 3, 2))[0] == ["wrong-class-map/t"]


def test_a_teacher_that_was_trained_here_is_only_measured():
    teacher = Teacher("t", TappedNetwork(Reads(), mean=[0.2] * 3, std=[0.4] * 3))
    found = examine_teacher(teacher, *coloured(), None)
    assert found["accuracy"] < 0.5
    assert found["accuracy_with"] == {}
    assert [*teacher_statements("t", found)] == []


def test_agreement_is_the_share_of_images_with_the_same_class():
    logits = torch.zeros(4, 2, 3)
    logits[:, 0, 0] = 1
    logits[:3, 1, 0] = 1
    logits[3, 1, 2] = 1
    torch.testing.assert_close(agreement(logits), torch.tensor([[1.0, 0.75], [0.75, 1.0]]))


def test_a_step_without_teachers_is_examined_too():
    student = network()
    make = lambda groups: torch.optim.SGD(groups, lr=0.1)  # noqa: E731
    module = DistillModule(student, {"ce": CrossEntropy()}, {"ce": 1.0}, K, make)
    found = examine(module, replace(batch(), view=1))
    assert names(found) == []
    assert found.share == {"ce": 1.0}
