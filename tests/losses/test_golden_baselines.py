"""The golden numbers of the methods that AMTML-KD is compared with, at 1e-6 in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amtml_pl.distill.loops.dml import mutual_loss
from amtml_pl.distill.loops.mtkd_rl import aggregated_weights
from amtml_pl.distill.released.aekd import ReleasedAekdWeighting, support_vector_weights
from amtml_pl.distill.released.dml import released_mutual_loss
from amtml_pl.distill.released.losses import ReleasedConfidenceFeatureRegression as ReleasedConfidence
from amtml_pl.distill.released.losses import (
    ReleasedFeatureRegression,
    ReleasedTripletLoss,
    released_triplet_terms,
)
from amtml_pl.losses.attention import AttentionLoss
from amtml_pl.losses.dkd import DecoupledLoss, decoupled_losses
from amtml_pl.losses.embeddings import EmbeddingTerm
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.losses.soft_targets_each import PerTeacherSoftTargetLoss, soft_target_losses
from amtml_pl.losses.triplets import TripletLoss, triplet_terms, votes
from amtml_pl.models.hint import attention_map
from amtml_pl.types import ModelOutputs, OfferedFeatures, Step, TeacherOutputs, TensorShapes
from amtml_pl.weighting.aekd import AekdWeighting, logit_gradients
from amtml_pl.weighting.confidence import ConfidenceWeighting, confidence_weights
from amtml_pl.weighting.entropy import EntropyWeighting
from amtml_pl.weighting.minimum_norm import minimum_norm_weights
from amtml_pl.weighting.uniform import UniformWeighting

pytestmark = pytest.mark.numbers


def assert_golden(got, expected):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected).to(got), rtol=0, atol=1e-6)


def teachers_of(given):
    return given["teacher_logits"].double().transpose(0, 1)


def test_dkd(golden):
    given, expected = golden("dkd")
    student, teacher, labels, T = (given[n] for n in ("student_logits", "teacher_logits", "labels", "T"))
    target, rest = decoupled_losses(student, teacher, labels, T)
    assert_golden(target.mean(), expected["tckd"])
    assert_golden(rest.mean(), expected["nckd"])
    term = DecoupledLoss(T, epochs=0, alpha=given["alpha"], beta=given["beta"])
    assert_golden(term(logit_step(student, teacher[:, None], labels=labels)), expected["total"])


def test_attention_transfer(golden):
    given, expected = golden("at")
    student, teacher = given["feat_s"].double(), attention_map(given["feat_t"].double())
    assert_golden(attention_map(student).flatten(1), expected["a_s"])
    assert_golden(teacher.flatten(1), expected["a_t"])
    offered = {"a": OfferedFeatures(stages=("layer",))}
    term, step = built(AttentionLoss(["layer"]), offered, {"layer": student}, [teacher])
    assert_golden(term(step), expected["loss"])


def test_votes_and_terms_of_triplets(golden):
    given, expected = golden("okd")
    student, triplets = given["student"].double(), given["triplets"]
    teachers = [torch.as_tensor(each).double() for each in given["teachers"]]
    ballots = votes(teachers, triplets)
    assert_golden(ballots.double(), expected["votes"].double())
    turned = torch.where((2 * ballots.sum(dim=1) > 3)[:, None], triplets, triplets[:, [0, 2, 1]])
    assert_golden(triplet_terms(student, turned, given["margin"]), expected["terms"])
    released = released_triplet_terms(student, teachers[-1], triplets, given["margin"])
    assert_golden(released, expected["reference_bug_terms"])


class OfAnyLength:
    """Mixin without the scaling to length 1: the golden embeddings have other lengths."""

    embeddings = EmbeddingTerm.embeddings


class TripletsOfAnyLength(OfAnyLength, TripletLoss): ...


class ReleasedTripletsOfAnyLength(OfAnyLength, ReleasedTripletLoss): ...


def test_triplets_by_votes_and_as_released(golden, monkeypatch):
    given, expected = golden("okd")
    for module in ("losses.triplets", "distill.released.losses"):
        monkeypatch.setattr(f"amtml_pl.{module}.random_triplets", lambda samples: given["triplets"])
    embeddings = (given["student"], *given["teachers"])
    maps = [torch.as_tensor(each).double()[:, :, None, None] for each in embeddings]
    offered = dict.fromkeys("abc", OfferedFeatures("last"))
    released = expected["reference_bug_terms"].mean()
    for kind, loss in ((TripletsOfAnyLength, expected["loss"]), (ReleasedTripletsOfAnyLength, released)):
        term, step = built(kind("last", given["margin"]), offered, {"last": maps[0]}, maps[1:])
        assert_golden(term(step), loss)


def test_entropy_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("ebkd")
    T, step = given["T"], logit_step(given["student_logits"], teachers_of(given))
    losses = soft_target_losses(step.student.logits, step.teachers.logits, T)
    assert_golden(losses.T, expected["kd_per"])
    assert_golden(PerTeacherSoftTargetLoss(T)(step), expected["aver_loss"])
    step = weighted(step, EntropyWeighting())
    assert_golden(step.weights.T, expected["weights_norm"])
    assert_golden(PerTeacherSoftTargetLoss(T)(step), expected["loss_norm"])
    assert_golden(PerTeacherSoftTargetLoss(T, "ebkd_code")(step), expected["loss_ref"])


def test_confidence_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("camkd")
    step = logit_step(given["student_logits"], teachers_of(given), labels=given["labels"])
    step = weighted(step, ConfidenceWeighting())
    assert_golden(step.weights.T, expected["weights"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"])(step), expected["kd_loss_paper"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"], "camkd_code")(step), expected["kd_loss_ref"])


def test_the_intermediate_loss_of_camkd(golden):
    given, expected = golden("camkd")
    losses = {"inter_paper": ConfidenceFeatureRegression, "inter_ref": ReleasedConfidence}
    for name, kind in losses.items():
        term, step = regression_of(kind, given["feat_s"], given["feat_t"], given["A"])
        step = replace(step, labels=given["labels_int"])
        term.set_teacher_heads(dict(zip(term.names, map(Classifier, given["heads"]), strict=True)))
        assert_golden(term.own_weights(step).T, expected["w_int"])
        assert_golden(term.errors(step).T, expected["mse"])
        assert_golden(term(step), expected[name])


LOWERED = 10.0  # keeps the maps negative, so that the regressors have no ReLU; the golden ones have none


def regression_of(kind, student, teachers, matrices):
    """Return a term whose regressors are 1x1 convolutions only, and its step."""
    offered = dict.fromkeys("abc"[: len(teachers)], OfferedFeatures("last"))
    lowered = [teacher.double() - LOWERED for teacher in teachers]
    term, step = built(kind(["last"]), offered, {"last": student.double()}, lowered)
    for regressor, matrix in zip(term.regressors, matrices, strict=True):
        regressor.norm = nn.Identity()
        regressor.project.weight.data = matrix.double()[:, :, None, None]
        regressor.project.bias.data.fill_(-LOWERED)
    return term, step


class Classifier(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix.double()

    def forward(self, feature):
        return (feature + LOWERED).mean(dim=(2, 3)) @ self.matrix.T


@pytest.mark.parametrize("kind", [FeatureRegression, ReleasedFeatureRegression])
def test_plain_feature_regression(golden, kind):
    given, expected = golden("fitnet_hint")
    term, step = regression_of(kind, given["feat_s"], [given["feat_t"]], [given["A"]])
    assert_golden(term(step), expected["plain"])


def test_the_quadratic_program_of_aekd(golden):
    given, expected = golden("aekd")
    toy = expected["toy_gram"].double()
    assert_golden(minimum_norm_weights(toy, given["C"]), expected["toy_alpha_C06"])
    assert_golden(minimum_norm_weights(toy, 1.0), expected["toy_alpha_C1"])
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"])
    means = gradients.mean(dim=1)
    assert_golden(means, expected["batch_mean_grad"])
    assert_golden(means @ means.T, expected["gram"])


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "alpha"), ({"normalize": True}, "alpha_normed"), ({"per_sample": True}, "alpha_full")],
)
def test_the_weights_and_the_loss_of_aekd(golden, options, name):
    given, expected = golden("aekd")
    T, step = given["T"], logit_step(given["student_logits"], teachers_of(given))
    step = weighted(step, AekdWeighting(T, tolerance=given["C"], **options))
    assert_golden(step.weights, expected[name].expand(4, 3))
    loss = PerTeacherSoftTargetLoss(T)(step)
    assert_golden(loss, expected[name] @ expected["loss_per_teacher"])
    if name == "alpha":
        assert_golden(loss, expected["loss"])


def test_the_solver_of_the_published_aekd_stops_where_it_starts(golden):
    given, expected = golden("aekd")
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"]).mean(dim=1)
    gram = gradients @ gradients.T
    step = logit_step(given["student_logits"], teachers_of(given))
    step = weighted(step, ReleasedAekdWeighting(given["T"], given["C"]))
    assert_golden(step.weights, expected["alpha_libsvm_unscaled"].expand(4, 3))
    assert_golden(support_vector_weights(1e-6 * gram, given["C"]), expected["alpha_libsvm_tiny"])


def test_mutual_learning_correct_and_as_released(golden):
    given, expected = golden("dml")
    peers, labels = given["peers"].double(), given["labels"]
    for j in range(3):
        others = torch.stack([peers[h] for h in range(3) if h != j])
        ce = F.cross_entropy(peers[j], labels)
        assert_golden(ce + mutual_loss(peers[j], others), expected["loss"][j])
        assert_golden(ce + released_mutual_loss(peers[j], others), expected["reference_bug"][j])


def test_the_static_aggregation_of_mtkd_rl(golden):
    given, expected = golden("mtkd_rl_weights")
    logits = teachers_of(given)
    divergence = soft_target_losses(given["student_logits"].double(), logits, given["T"])
    confidence = confidence_weights(logits, given["labels"])
    assert_golden(aggregated_weights(given["policy"].double(), confidence, divergence), expected["weights"])


def logit_step(student, teachers, labels=None):
    """Return a step with uniform weights."""
    B, M, _ = teachers.shape
    outputs = TeacherOutputs(tuple("abc"[:M]), teachers.double())
    labels = torch.zeros(B, dtype=torch.long) if labels is None else labels
    step = Step(student=ModelOutputs(student.double()), labels=labels, epoch=0, teachers=outputs)
    return weighted(step, UniformWeighting())


def weighted(step, scheme):
    return replace(step, weights=scheme(step.student, step.teachers, step.labels))


def built(term, offered, features, maps):
    """Return a built term and a step with the given maps and uniform weights."""
    hints = dict(zip(term.hints(offered), maps, strict=True))
    sizes = [{name: tuple(f.shape[1:]) for name, f in group.items()} for group in (features, hints)]
    term.build(TensorShapes(2, tuple(offered), *sizes, offered))
    B = len(maps[0])
    step = logit_step(torch.zeros(B, 2), torch.zeros(B, len(offered), 2))
    teachers = replace(step.teachers, hints=hints)
    return term.double(), replace(step, student=replace(step.student, features=features), teachers=teachers)
