"""MMKD and MTKD-RL on a tiny linear student, compared with values by the published formulas."""

import pytest
import torch
from torch import nn

from amtml_pl.distill.loops.mmkd import MMKD
from amtml_pl.distill.loops.mtkd_rl import MTKDRL, reward
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.types import Batch, OfferedFeatures, TeacherOutputs, TensorShapes
from amtml_pl.weighting.uniform import UniformWeighting
from golden_steps import assert_golden, teachers_of

pytestmark = pytest.mark.numbers


class LinearNetwork(nn.Module):
    """A 1x1 convolution, whose mean over places a linear layer classifies."""

    def __init__(self, channels, classes):
        super().__init__()
        self.map = nn.Conv2d(3, channels, 1, bias=False)
        self.head = nn.Linear(channels, classes, bias=False)

    def forward(self, images):
        return self.head(self.map(images).mean(dim=(2, 3)))


def fill(*pairs):
    """Write values into parameters and buffers."""
    for tensor, value in pairs:
        tensor.data.copy_(torch.as_tensor(value).view_as(tensor))


def loop(kind, given, coef_regression, **options):
    """Return a method's loop with the student and regressors of a case, and its batch."""
    network = LinearNetwork(2, 3)
    student = TappedNetwork(network, mean=[0.0] * 3, std=[1.0] * 3, taps=["map"])
    hints = {f"{name}/map": each for name, each in zip("ab", given["teacher_maps"], strict=True)}
    offered = dict.fromkeys("ab", OfferedFeatures("map"))
    sizes = {name: tuple(each.shape[1:]) for name, each in hints.items()}
    term = FeatureRegression(["map"])
    term.build(TensorShapes(3, ("a", "b"), {"map": (2, 2, 2)}, sizes, offered))
    terms = {"ce": CrossEntropy(), "kd_each": PerTeacherSoftTargetLoss(given["T"]), "regression": term}
    coef = {"ce": 1.0, "kd_each": 1.0, "regression": coef_regression}
    module = kind(
        student, terms, coef, 3, torch.optim.SGD, teachers=CachedTeachers("ab"), weighting=UniformWeighting(),
        temperature=given["T"], **options,
    ).double()  # fmt: skip
    fill((network.map.weight, given["student_map"]), (network.head.weight, given["student_head"]))
    for m, each in enumerate(term.each()):
        fill(
            (each.project.weight, given["regressors"][m]),
            (each.project.bias, given["regressor_bias"][m]),
            (each.norm.weight, given["norm_weight"][m]),
            (each.norm.bias, given["norm_bias"][m]),
            (each.norm.running_mean, given["norm_mean"][m]),
            (each.norm.running_var, given["norm_var"][m]),
        )
    outputs = TeacherOutputs(("a", "b"), teachers_of(given), hints)
    labels = given["labels"]
    return module, Batch(given["images"], labels, torch.arange(len(labels)), 1, "train", teachers=outputs)


def check_gradients(parameters, expected):
    assert parameters.keys() == expected.keys()
    for name, parameter in parameters.items():
        assert_golden(parameter.grad, expected[name])


def test_mmkds_weights_matching_loss_and_meta_gradient(golden):
    given, expected = golden("mmkd")
    module, batch = loop(MMKD, given, given["beta"])
    module.for_logits, module.for_features = (
        nn.Sequential(nn.Linear(9, 3), nn.ReLU(), nn.Linear(3, 2)).double() for _ in "ab"
    )
    nets = {"logits": module.for_logits, "features": module.for_features}
    parameters = {
        f"{name}_{layer}{suffix}": getattr(net[i], kind)
        for name, net in nets.items()
        for i, layer in ((0, "hidden"), (2, "out"))
        for kind, suffix in (("weight", ""), ("bias", "_bias"))
    }
    fill(*((parameter, given[name]) for name, parameter in parameters.items()))
    student = module.student(batch.images)
    weights, feature_weights = module.weigh(student, batch.teachers)
    assert_golden(weights, expected["weights"])
    assert_golden(feature_weights, expected["feature_weights"])
    assert_golden(module.matching_loss(student, batch), expected["match_loss"])
    loss = module.meta_loss(batch, given["lr"])
    assert_golden(loss, expected["meta_loss"])
    loss.backward()
    check_gradients(parameters, expected["meta_gradient"])


def test_mtkd_rls_state_weights_reward_and_agent_loss(golden):
    (given, expected), (shared, _) = golden("mtkd_rl"), golden("mmkd")
    module, batch = loop(MTKDRL, shared, 5.0, hidden=3)
    agent = module.agent
    parameters = {
        "agent_hidden": agent.body[0].weight,
        "agent_logits": agent.for_logits.weight, "agent_logits_bias": agent.for_logits.bias,
        "agent_features": agent.for_features.weight, "agent_features_bias": agent.for_features.bias,
    }  # fmt: skip
    assert len([*agent.parameters()]) == len(parameters)
    fill(*((parameter, given[name]) for name, parameter in parameters.items()))
    step = module.distill_step(batch)
    assert_golden(step.observation.state, expected["state"])
    assert_golden(step.weights, expected["weights"])
    assert_golden(step.feature_weights, expected["feature_weights"])
    assert_golden(module.total(module.values(step)), expected["sample_loss"].mean())
    assert_golden(reward(-expected["sample_loss"]), expected["reward"])
    loss = module.weights_loss(batch, step, lr=0.1)
    assert_golden(loss, expected["agent_loss"])
    loss.backward()
    check_gradients(parameters, expected["agent_gradient"])
