"""What predictions are worth, held against plain loops."""

import math

import pytest
import torch

from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.results.evaluation.quality import (
    BINS,
    Reliability,
    accuracy_by_class,
    agreement,
    ensemble,
    quality,
)

pytestmark = pytest.mark.numbers

LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])


@pytest.fixture
def logits():
    return 2 * torch.randn(8, 7, generator=torch.Generator().manual_seed(1))


def test_the_measures_are_their_definitions(logits):
    found = quality(logits, LABELS)
    rows = [(row.softmax(0).tolist(), int(label)) for row, label in zip(logits.double(), LABELS, strict=True)]
    assert found["acc"] == pytest.approx(sum(p.index(max(p)) == y for p, y in rows) / 8)
    ranks = [sum(other > p[y] for other in p) for p, y in rows]
    assert found["acc_top5"] == pytest.approx(sum(rank < 5 for rank in ranks) / 8)
    assert found["nll"] == pytest.approx(sum(-math.log(p[y]) for p, y in rows) / 8)
    squares = [sum((q - (k == y)) ** 2 for k, q in enumerate(p)) for p, y in rows]
    assert found["brier"] == pytest.approx(sum(squares) / 8)
    bins = [[] for _ in range(15)]
    for p, y in rows:
        bins[math.ceil(max(p) * 15) - 1].append((max(p), p.index(max(p)) == y))
    gaps = [abs(sum(c for c, _ in b) - sum(r for _, r in b)) / 8 for b in bins]
    assert found["ece"] == pytest.approx(sum(gaps))


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


@pytest.mark.parametrize("edge", range(1, BINS + 1))
def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one(edge):
    confidence = edge / BINS
    beyond = min(math.nextafter(confidence, 2), 1.0)
    rows = [[value, *[(1 - value) / 40] * 40] for value in (confidence, beyond)]
    found = Reliability.of(torch.tensor(rows, dtype=torch.float64), torch.zeros(2, dtype=torch.long))
    filled = found.samples.nonzero().flatten().tolist()
    assert filled == ([edge - 1, edge] if edge < BINS else [edge - 1])


def test_the_error_of_confidences_on_edges_is_that_of_the_paper_s_bins():
    rows = torch.tensor([[0.6, 0.4], [0.65, 0.35], [1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([1, 0, 0])
    # (8/15, 9/15] holds 0.6, which is wrong; (9/15, 10/15] holds 0.65, which is right.
    assert Reliability.of(rows, labels).error == pytest.approx((0.6 + 0.35 + 0.0) / 3)


def test_top_5_is_left_out_where_five_classes_are_all(logits):
    assert "acc_top5" not in quality(logits[:, :5], LABELS.clamp(max=4))


def test_a_class_without_images_has_no_accuracy():
    right = torch.eye(3)[[0, 0, 1]]
    found = accuracy_by_class(right, torch.tensor([0, 1, 1]), ("a", "b", "c"))
    assert found == {"a": (1.0, 1), "b": (0.5, 2), "c": (None, 0)}


def test_a_student_agrees_with_itself_and_the_divergence_is_the_teachers_from_the_student(logits):
    own = agreement(logits, logits.log_softmax(dim=1))
    assert own == pytest.approx({"agreement": 1.0, "kl": 0.0}, abs=1e-6)
    teacher = torch.randn(8, 7, generator=torch.Generator().manual_seed(3)).softmax(dim=1)
    found = agreement(logits, teacher.log())
    student = logits.softmax(dim=1)
    divergence = (teacher * (teacher / student).log()).sum(1).mean()
    assert found["kl"] == pytest.approx(float(divergence), rel=1e-5)
    same = [row.argmax() == of.argmax() for row, of in zip(teacher, student, strict=True)]
    assert found["agreement"] == pytest.approx(sum(same) / 8)


def test_the_ensemble_of_equal_weights_is_the_mean_of_the_probabilities(logits):
    both = torch.stack([logits, logits.flip(0)], dim=1)
    half = torch.full((8, 2), 0.5)
    assert torch.allclose(ensemble(both, half).exp(), both.softmax(dim=2).mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
def test_the_ensemble_is_the_integrated_soft_target_at_temperature_1(logits, mixture):
    both = torch.stack([logits, logits.flip(0)], dim=1)
    weights = torch.rand(8, 2, generator=torch.Generator().manual_seed(2)).softmax(dim=1)
    weights[0] = torch.tensor([1.0, 0.0])
    expected = integrated_soft_targets(both, weights, 1.0, mixture)
    assert torch.allclose(ensemble(both, weights, mixture).exp(), expected, atol=1e-6)
