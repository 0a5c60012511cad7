"""Edge cases of the measures; test_evaluated_numbers.py checks their definitions."""

import math

import pytest
import torch

from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.results.evaluation.quality import BINS, calibration_error, ensemble, quality
from amtml_pl.results.evaluation.quality import accuracy_by_class as by_class

pytestmark = pytest.mark.numbers

LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])


@pytest.fixture
def logits():
    return 2 * torch.randn(8, 7, generator=torch.Generator().manual_seed(1))


def test_a_confidence_of_exactly_1_is_in_the_last_bin_and_many_images_are_summed_exactly():
    sure = torch.zeros(200, 10)
    sure[:100, 0] = math.log(0.94 / 0.06 * 9)  # a confidence of 0.94, in the same bin
    sure[100:, 0] = 60.0  # 1 to the last digit
    labels = torch.zeros(200, dtype=torch.long)
    labels[190:] = 1
    assert quality(sure, labels)["ece"] == pytest.approx((100 * (1 - 0.94) - 10) / 200 * -1, rel=1e-6)
    many = torch.zeros(45_000, 10)
    many[:, 3] = math.log(0.9985 / 0.0015 * 9)
    assert quality(many, torch.full((45_000,), 3))["ece"] == pytest.approx(0.0015, rel=1e-4)


@pytest.mark.parametrize("edge", [1, 7, BINS - 1])
def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one(edge):
    confidence, label_0_then_1 = edge / BINS, torch.tensor([0, 1])

    def error(*confidences):
        rows = [[value, *[(1 - value) / 40] * 40] for value in confidences]
        return calibration_error(torch.tensor(rows, dtype=torch.float64), label_0_then_1)

    # A right and a wrong prediction cancel in one bin, and add up in two.
    assert error(math.nextafter(confidence, 0), confidence) == pytest.approx(abs(2 * confidence - 1) / 2)
    assert error(confidence, math.nextafter(confidence, 2)) == pytest.approx(1 / 2)


def test_the_error_of_confidences_on_edges_is_that_of_the_paper_s_bins():
    rows = torch.tensor([[0.6, 0.4], [0.65, 0.35], [1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0])
    # (8/15, 9/15] holds 0.6, which is wrong; (9/15, 10/15] holds 0.65, which is right.
    assert calibration_error(rows, labels) == pytest.approx((0.6 + 0.35 + 0.0) / 3)


def test_top_5_is_left_out_where_five_classes_are_all(logits):
    assert "acc_top5" not in quality(logits[:, :5], LABELS.clamp(max=4))


def test_a_class_without_images_has_no_accuracy():
    right = torch.eye(3)[[0, 0, 1]]
    found = by_class(right, torch.tensor([0, 1, 1]), ("a", "b", "c"))
    assert found == {"a": (1.0, 1), "b": (0.5, 2), "c": (None, 0)}


@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
def test_the_ensemble_is_the_integrated_soft_target_at_temperature_1(logits, mixture):
    both = torch.stack([logits, logits.flip(0)], dim=1)
    weights = torch.rand(8, 2, generator=torch.Generator().manual_seed(2)).softmax(dim=1)
    weights[0] = torch.tensor([1.0, 0.0])
    expected = integrated_soft_targets(both, weights, 1.0, mixture)
    assert torch.allclose(ensemble(both, weights, mixture).exp(), expected, atol=1e-6)
