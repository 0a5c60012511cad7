"""The golden numbers of the methods that AMTML-KD is compared with, at 1e-6 in float64."""

import torch
import torch.nn.functional as F

from amtml_pl.loops.dml import mutual_loss
from amtml_pl.loops.mtkd_rl import aggregated_weights
from amtml_pl.losses.attention import attention_losses
from amtml_pl.losses.dkd import decoupled_losses
from amtml_pl.losses.regression import regression_errors, weighted_mean
from amtml_pl.losses.soft_targets_each import PerTeacherSoftTargetLoss, soft_target_losses
from amtml_pl.losses.triplets import relative_dissimilarity_loss, triplet_terms, votes
from amtml_pl.readings import attention_map
from amtml_pl.released.aekd import support_vector_weights
from amtml_pl.released.dml import released_mutual_loss
from amtml_pl.released.triplets import released_triplet_terms
from amtml_pl.types import ModelOutputs, Step, TeacherOutputs
from amtml_pl.weighting.aekd import gradient_weights, logit_gradients
from amtml_pl.weighting.confidence import confidence_weights
from amtml_pl.weighting.entropy import entropy_weights
from amtml_pl.weighting.minimum_norm import minimum_norm_weights


def assert_golden(got, expected):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected).to(got), rtol=0, atol=1e-6)


def teachers_of(given):
    return given["teacher_logits"].double().transpose(0, 1)


def test_dkd(golden):
    given, expected = golden("dkd")
    target, rest = decoupled_losses(
        given["student_logits"].double(), given["teacher_logits"].double(), given["labels"], given["T"]
    )
    assert_golden(target.mean(), expected["tckd"])
    assert_golden(rest.mean(), expected["nckd"])
    assert_golden(given["alpha"] * target.mean() + given["beta"] * rest.mean(), expected["total"])


def test_attention_transfer(golden):
    given, expected = golden("at")
    student, teacher = given["feat_s"].double(), attention_map(given["feat_t"].double())
    assert_golden(attention_map(student).flatten(1), expected["a_s"])
    assert_golden(teacher.flatten(1), expected["a_t"])
    assert_golden(attention_losses(student, teacher).mean(), expected["loss"])


def test_triplets_by_votes_and_as_released(golden):
    given, expected = golden("okd")
    student, triplets = given["student"].double(), given["triplets"]
    teachers = [torch.as_tensor(each).double() for each in given["teachers"]]
    asked = votes(teachers, triplets)
    assert_golden(asked.double(), expected["votes"].double())
    turned = torch.where((2 * asked.sum(dim=1) > 3)[:, None], triplets, triplets[:, [0, 2, 1]])
    assert_golden(triplet_terms(student, turned, given["margin"]), expected["terms"])
    loss = relative_dissimilarity_loss(student, teachers, triplets, given["margin"])
    assert_golden(loss, expected["loss"])
    released = released_triplet_terms(student, teachers[-1], triplets, given["margin"])
    assert_golden(released, expected["reference_bug_terms"])


def test_entropy_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("ebkd")
    logits = teachers_of(given)
    weights = entropy_weights(logits)
    assert_golden(weights.T, expected["weights_norm"])
    losses = soft_target_losses(given["student_logits"].double(), logits, given["T"])
    assert_golden(losses.T, expected["kd_per"])
    assert_golden(losses.mean(), expected["aver_loss"])
    step = logit_step(given["student_logits"].double(), logits, weights)
    assert_golden(PerTeacherSoftTargetLoss(given["T"])(step), expected["loss_norm"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"], "ebkd_code")(step), expected["loss_ref"])


def test_confidence_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("camkd")
    logits = teachers_of(given)
    weights = confidence_weights(logits, given["labels"])
    assert_golden(weights.T, expected["weights"])
    step = logit_step(given["student_logits"].double(), logits, weights)
    assert_golden(PerTeacherSoftTargetLoss(given["T"])(step), expected["kd_loss_paper"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"], "camkd_code")(step), expected["kd_loss_ref"])


def test_the_intermediate_loss_of_camkd(golden):
    given, expected = golden("camkd")
    feature = given["feat_s"].double()
    heads, targets = given["heads"], given["feat_t"]
    regressed = [F.conv2d(feature, A[:, :, None, None]) for A in given["A"]]
    logits = torch.stack(
        [made.mean(dim=(2, 3)) @ head.T for made, head in zip(regressed, heads, strict=True)], 1
    )
    weights = confidence_weights(logits, given["labels_int"])
    errors = regression_errors(regressed, targets)
    assert_golden(weights.T, expected["w_int"])
    assert_golden(errors.T, expected["mse"])
    assert_golden(weighted_mean(errors, weights), expected["inter_paper"])
    assert_golden((weights * errors).mean(), expected["inter_ref"])


def test_plain_feature_regression(golden):
    given, expected = golden("fitnet_hint")
    made = F.conv2d(given["feat_s"].double(), given["A"].double()[:, :, None, None])
    errors = regression_errors([made], [given["feat_t"].double()])
    assert_golden(errors.mean(), expected["plain"])


def test_the_quadratic_program_of_aekd(golden):
    given, expected = golden("aekd")
    toy = expected["toy_gram"].double()
    assert_golden(minimum_norm_weights(toy, given["C"]), expected["toy_alpha_C06"])
    assert_golden(minimum_norm_weights(toy, 1.0), expected["toy_alpha_C1"])
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"])
    means = gradients.mean(dim=1)
    assert_golden(means, expected["batch_mean_grad"])
    assert_golden(means @ means.T, expected["gram"])
    assert_golden(gradient_weights(means, given["C"], normalize=False), expected["alpha"])
    assert_golden(gradient_weights(means, given["C"], normalize=True), expected["alpha_normed"])
    assert_golden(gradient_weights(gradients.flatten(1), given["C"], normalize=False), expected["alpha_full"])
    weights = gradient_weights(means, given["C"], normalize=False)
    losses = soft_target_losses(given["student_logits"].double(), teachers_of(given), given["T"])
    assert_golden((losses.mean(dim=0) * weights).sum(), expected["loss"])


def test_the_solver_of_the_published_aekd_stops_where_it_starts(golden):
    given, expected = golden("aekd")
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"]).mean(dim=1)
    gram = gradients @ gradients.T
    assert_golden(support_vector_weights(gram, given["C"]), expected["alpha_libsvm_unscaled"])
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


def logit_step(student, teachers, weights):
    outputs = TeacherOutputs(tuple("abc"), teachers)
    labels = torch.zeros(len(student), dtype=torch.long)
    return Step(ModelOutputs(student), labels, outputs, weights, None, 0)
