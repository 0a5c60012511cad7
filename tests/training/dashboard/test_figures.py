"""Numbers of the figures against slow loops; figures can be drawn."""

import math
import warnings

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from amtml_pl.results.evaluation.quality import BINS, calibration_error
from amtml_pl.training.dashboard import drawing
from amtml_pl.training.dashboard.answers import PredictionBuffer
from amtml_pl.training.dashboard.disagreement import (
    EXAMPLES,
    Examples,
    MostDisputed,
    disagreement,
    draw_examples,
)
from amtml_pl.training.dashboard.drawing import new_figure, pixels
from amtml_pl.training.dashboard.teaching import Teaching, concatenated
from amtml_pl.training.dashboard.weights_by_class import (
    draw_weights_by_class,
    mean_weights_by_class,
    write_weights_by_class,
)
from amtml_pl.types import Batch
from rounding import rounding

pytestmark = pytest.mark.numbers

N, M, K = 40, 3, 5


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def test_mean_weights_by_class_are_those_of_a_loop(random):
    weights = torch.softmax(torch.randn(N, M, generator=random), dim=1)
    labels = torch.randint(K - 1, (N,), generator=random)  # the last class has no samples
    found = mean_weights_by_class(weights, labels, K)
    for k in range(K - 1):
        rows = [weights[n].tolist() for n in range(N) if labels[n] == k]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert found[k].tolist() == pytest.approx(means, rel=rounding(N))
    assert found[K - 1].isnan().all()


def test_the_table_of_weights_has_a_row_per_epoch_and_class_with_samples(tmp_path):
    file = tmp_path / "weights_by_class.csv"
    file.write_text("damaged,\xff")
    means = {0: torch.tensor([[0.25, 0.75], [0.5, 0.5]]), 2: torch.tensor([[1.0, 0.0], [float("nan")] * 2])}
    write_weights_by_class(file, ["a", "b"], ["cat", "dög"], means)
    rows = ["epoch,class,a,b", "0,cat,0.25,0.75", "0,dög,0.5,0.5", "2,cat,1,0"]
    assert file.read_text(encoding="utf-8").split() == rows
    write_weights_by_class(file, ["a", "b"], ["cat", "dög"], {})  # a fit that starts over
    assert not file.exists()


def test_disagreement_is_the_jensen_shannon_divergence(random):
    logits = torch.randn(N, M, K, generator=random)
    found = disagreement(logits)
    for n in range(N):
        rows = [[math.exp(z) for z in row] for row in logits[n].double().tolist()]
        rows = [[value / sum(row) for value in row] for row in rows]
        mean = [sum(column) / M for column in zip(*rows, strict=True)]
        entropies = [-sum(p * math.log(p) for p in row) for row in rows]
        expected = -sum(p * math.log(p) for p in mean) - sum(entropies) / M
        assert float(found[n]) == pytest.approx(expected, abs=1e-9)


def test_the_most_disputed_images_come_first_with_all_their_outputs(random):
    agreed = torch.zeros(1, M, K) + torch.tensor([9.0, 0, 0, 0, 0])
    disputed = 9.0 * torch.eye(K)[:M][None]
    between = torch.cat([disputed[:, :1], agreed[:, 1:]], dim=1) * 0.3
    examples = Examples(
        torch.rand(3, 3, 8, 8, generator=random), torch.tensor([0, 1, 2]),
        torch.cat([agreed, disputed, between]), torch.full((3, M), 1 / M),
        torch.randn(3, K, generator=random),
    )  # fmt: skip
    first = examples.most_disputed(1)
    assert first.labels.tolist() == [1]
    assert torch.equal(first.images[0], examples.images[1])
    assert float(disagreement(agreed)) == pytest.approx(0.0, abs=1e-9)
    assert 1.0 < float(disagreement(disputed)) < math.log(M)


def test_the_most_disputed_of_all_steps_are_kept_and_nothing_else(random):
    steps = [
        Examples(
            torch.rand(6, 3, 8, 8, generator=random, requires_grad=True), torch.arange(6) % K,
            torch.randn(6, M, K, generator=random).bfloat16(), torch.full((6, M), 1 / M),
            torch.randn(6, K, generator=random),
        )
        for _ in range(5)
    ]  # fmt: skip
    disputed = MostDisputed()
    for each in steps:
        disputed.see(each)
        assert len(disputed.kept.images) == EXAMPLES
    expected = concatenated(steps).most_disputed(EXAMPLES)
    assert disputed.seen == 30
    for name, column in vars(expected).items():
        assert torch.equal(getattr(disputed.kept, name), column), name
    assert not disputed.kept.images.requires_grad
    assert disputed.kept.teachers.dtype == torch.float32


def test_the_calibration_error_is_that_of_torchmetrics(random):
    logits, labels = 3 * torch.randn(500, K, generator=random), torch.randint(K, (500,), generator=random)
    expected = multiclass_calibration_error(logits.softmax(dim=1), labels, K, n_bins=BINS, norm="l1")
    found = calibration_error(logits.double().softmax(dim=1), labels)
    assert found == pytest.approx(float(expected), abs=rounding(500))


@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
def test_agreement_and_entropy_of_the_steps_are_those_of_a_loop(random, mixture):
    labels = torch.randint(K, (2 * N,), generator=random)
    teachers = torch.randn(2 * N, M, K, generator=random)
    student = torch.randn(2 * N, K, generator=random)
    weights = torch.softmax(torch.randn(2 * N, M, generator=random), dim=1)
    steps = zip(*(each.split(N) for each in (labels, teachers, weights, student)), strict=True)
    found = concatenated([Teaching.of(*each, 2.0, mixture) for each in steps]).scalars(("a", "b", "c"))
    predicted = [row.index(max(row)) for row in student.tolist()]
    mixed = []
    for n in range(2 * N):
        softened = [teachers[n, m] / 2 for m in range(M)]
        if mixture == "probabilities":
            softened = [logits.softmax(dim=0) for logits in softened]
        mixed.append(int(sum(weights[n, m] * softened[m] for m in range(M)).argmax()))
    assert found["ensemble/train/acc"] == mean_equal(mixed, labels.tolist())
    assert found["ensemble/agreement_student"] == mean_equal(mixed, predicted)
    for m, name in enumerate("abc"):
        named = [row.index(max(row)) for row in teachers[:, m].tolist()]
        assert found[f"teacher/{name}/agreement_label"] == mean_equal(named, labels.tolist())
        assert found[f"teacher/{name}/agreement_student"] == mean_equal(named, predicted)
        entropy = -sum(row[m] * math.log(row[m]) for row in weights.tolist()) / (2 * N)
        assert found[f"teacher/{name}/weight_entropy"] == pytest.approx(entropy, rel=rounding(2 * N))


def mean_equal(first, second):
    return pytest.approx(sum(a == b for a, b in zip(first, second, strict=True)) / len(first))


def filled(logits, labels, *, in_batches_of):
    """Return a buffer with one pass over a split, whose last batch comes first."""
    buffer = PredictionBuffer()
    rows = zip(torch.arange(len(labels)).split(in_batches_of), labels.split(in_batches_of),
               logits.split(in_batches_of), strict=True)  # fmt: skip
    for index, own, values in reversed([*rows]):
        buffer.add(Batch(torch.rand(len(own), 3, 2, 2), own, index, 0, "val"), values)
    return buffer


def test_validation_curves_compare_the_mean_of_the_teachers_with_student_and_labels():
    student = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    teachers = torch.tensor([[[5.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [1.0, 0.0]]])
    buffer = filled(student, torch.tensor([0, 1]), in_batches_of=1)
    assert buffer.whole()[0].tolist() == [1, 0]
    found = buffer.scalars(teachers, ("a", "b"))
    assert found.pop("student/val/ece") == pytest.approx(1 / (1 + math.exp(-2)) - 0.5)
    assert found == {
        "ensemble/val/acc": 1.0, "ensemble/val/agreement_student": 0.5,
        "teacher/a/val/agreement_student": 0.5, "teacher/b/val/agreement_student": 0.5,
    }  # fmt: skip
    assert PredictionBuffer().scalars(teachers, ("a", "b")) == {}


def test_a_letter_missing_from_the_first_font_is_drawn_without_a_warning(monkeypatch):
    def drawn(letter, *fonts):
        monkeypatch.setattr(drawing, "EAST_ASIAN", fonts)
        figure = new_figure(1, 1, fitted=False)
        figure.text(0.5, 0.5, letter)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return pixels(figure)

    only_in_another = "\u1d15"  # which matplotlib brings itself
    box = drawn(only_in_another, "no such font")
    assert not np.array_equal(box, drawn(only_in_another, "no such font", "DejaVu Serif"))


@pytest.mark.parametrize("classes", [("cat $a", "dog_{b}", "<i>"), tuple(f"class {k}" for k in range(21))])
def test_every_figure_can_be_drawn_for_few_classes_and_for_many(random, classes):
    k = len(classes)
    logits, labels = torch.randn(60, k, generator=random), torch.randint(k, (60,), generator=random)
    weights = torch.softmax(torch.randn(60, M, generator=random), dim=1)
    teachers = torch.randn(60, M, k, generator=random)
    examples = Examples(torch.rand(60, 3, 8, 8, generator=random), labels, teachers, weights, logits)
    figures = [
        filled(logits, labels, in_batches_of=32).draw_confusion(classes, "student"),
        draw_weights_by_class(mean_weights_by_class(weights, labels, k), classes, ["a", "b_1", "$c"]),
        draw_examples(examples.most_disputed(2), ["a", "b_1", "$c"], classes, 4.0),
    ]
    for figure in figures:
        drawn = pixels(figure)
        assert drawn.dtype == np.uint8
        assert drawn.shape[2] == 3
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10
