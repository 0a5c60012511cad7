"""The golden numbers of AMTML-KD, at 1e-6 in float64."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.distill.published.losses import element_mean_soft_target_loss
from amtml_pl.losses.angle import angle_loss
from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.hint import hint_loss
from amtml_pl.losses.soft_targets import integrated_soft_targets, soft_target_loss
from amtml_pl.weighting.adaptive import latent_factor_weights
from angle_oracle import angles

pytestmark = pytest.mark.numbers


def assert_golden(got, expected):
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(expected).to(got), rtol=0, atol=1e-6)


def test_weights_of_the_adapter_from_max_and_from_average_pooled_features(golden):
    given, expected = golden("adapter_weights")
    theta, mixing = given["theta"].double(), given["W"].double()
    features = given["feature_map"].double()
    assert_golden(features.amax(dim=(2, 3)), expected["beta"])
    assert_golden(latent_factor_weights(features.amax(dim=(2, 3)), theta, mixing), expected["weights"])
    assert_golden(features.mean(dim=(2, 3)), expected["beta_avg"])
    assert_golden(latent_factor_weights(features.mean(dim=(2, 3)), theta, mixing), expected["weights_avg"])
    assert_golden(theta.square().sum() + mixing.square().sum(), expected["l2"])


@pytest.mark.parametrize(
    ("mixture", "name"), [("probabilities", "prob_mixture"), ("logits", "logit_mixture")]
)
def test_integrated_soft_targets(golden, mixture, name):
    given, expected = golden("integrated_target")
    logits = given["teacher_logits"].double().transpose(0, 1)
    assert_golden(integrated_soft_targets(logits, given["weights"], given["T"], mixture), expected[name])


def test_soft_target_loss_and_its_gradient(golden):
    given, expected = golden("kd_loss")
    logits = given["student_logits"].double().requires_grad_()
    loss = soft_target_loss(logits, given["target"], given["T"])
    assert_golden(loss, expected["kd_T2"])
    assert_golden(loss / given["T"] ** 2, expected["kl_batchmean"])
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_golden(gradient, expected["grad_kd_T2_wrt_student_logits"])
    hinton = given["alpha"] * loss + (1 - given["alpha"]) * F.cross_entropy(logits, given["labels"])
    assert_golden(hinton, expected["hinton"])


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


def test_angle_and_distance_between_two_sets_of_points(golden):
    given, expected = golden("rkd")
    student, teacher = given["student"].double(), given["teacher"].double()
    assert_golden(angles(student)[0], expected["psi_student_first_vertex"])
    assert_golden(angle_loss(student, teacher), expected["angle"])
    assert_golden(distance_loss(student, teacher), expected["distance"])


def test_angle_and_distance_in_the_spaces_of_the_published_and_of_the_corrected_code(golden):
    given, expected = golden("rkd")
    logits, q = given["student_logits"].double(), given["prob_mixture"].double()
    assert_golden(angle_loss(F.softmax(logits / 5, dim=1), q), expected["prob_angle"])
    assert_golden(angle_loss(F.log_softmax(logits / 5, dim=1), q), expected["amtml_angle"])
    assert_golden(distance_loss(F.log_softmax(logits / 5, dim=1), q), expected["amtml_dist"])
    assert_golden(angle_loss(logits, q), expected["logits_angle"])
    assert_golden(distance_loss(logits, q), expected["logits_dist"])


def test_hints_normalised_over_channels_and_compared_as_means(golden):
    given, expected = golden("fitnet_hint")
    student, teacher, projection = (given[name].double() for name in ("feat_s", "feat_t", "A"))
    assert_golden(hint_loss(student, teacher, projection), expected["channel_norm"])
    pooled = [F.adaptive_avg_pool2d(features, 1) for features in (student, teacher)]
    assert_golden(pooled[1].squeeze(), expected["pooled_teacher"].squeeze())
    assert_golden(hint_loss(*pooled, projection), expected["gap"])
    broadcast = pooled[1].expand(*teacher.shape)
    assert_golden(hint_loss(student, broadcast, projection), expected["pooled_broadcast"])
