"""What the figures show, against loops that say the same slowly; and that they can be drawn."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from amtml_pl.results.evaluation.quality import BINS, Reliability
from amtml_pl.training.dashboard import disagreement as disputed_images
from amtml_pl.training.dashboard import drawing
from amtml_pl.training.dashboard.answers import (
    PredictionBuffer,
    agreement_with_teachers,
    confusion_matrix,
    draw_confusion,
    draw_reliability,
    shares_of_rows,
)  # fmt: skip
from amtml_pl.training.dashboard.disagreement import (
    EXAMPLES,
    Examples,
    disagreement,
    draw_examples,
)
from amtml_pl.training.dashboard.drawing import new_figure, pixels
from amtml_pl.training.dashboard.teaching import Teaching
from amtml_pl.training.dashboard.weights_by_class import (
    WeightsByClass,
    draw_weights_by_class,
    mean_weights_by_class,
)
from amtml_pl.types import Batch, ModelOutputs, Step, TeacherOutputs
from rounding import rounding

pytestmark = pytest.mark.numbers

N, M, K = 40, 3, 5


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def step(random, labels=None):
    weights = torch.softmax(torch.randn(N, M, generator=random), dim=1)
    labels = torch.randint(K, (N,), generator=random) if labels is None else labels
    teachers = TeacherOutputs(("a", "b", "c"), torch.randn(N, M, K, generator=random))
    return Step(ModelOutputs(torch.randn(N, K, generator=random)), labels, teachers, weights, None, 0)


def test_mean_weights_by_class_are_those_of_a_loop(random):
    weights = torch.softmax(torch.randn(N, M, generator=random), dim=1)
    labels = torch.randint(K - 1, (N,), generator=random)  # the last class has no samples
    found = mean_weights_by_class(weights, labels, K)
    for k in range(K - 1):
        rows = [weights[n].tolist() for n in range(N) if labels[n] == k]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        assert found[k].tolist() == pytest.approx(means, rel=rounding(N))
    assert found[K - 1].isnan().all()


def test_the_table_of_weights_is_written_anew_from_what_a_checkpoint_holds(tmp_path):
    file = tmp_path / "weights_by_class.csv"
    file.write_text("damaged,\xff")
    means = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    table = WeightsByClass(file, ["a", "b"], ["cat", "dög"], {0: means, 1: means})
    table.add(2, torch.tensor([[1.0, 0.0], [float("nan"), float("nan")]]))
    of_an_epoch = ["cat,0.25,0.75", "dög,0.5,0.5"]
    before = [f"{epoch},{row}" for epoch in (0, 1) for row in of_an_epoch]
    assert file.read_text(encoding="utf-8").split() == ["epoch,class,a,b", *before, "2,cat,1,0"]


def test_a_fit_that_begins_has_no_table_of_an_earlier_one(tmp_path):
    file = tmp_path / "weights_by_class.csv"
    file.write_text("epoch,class,a\n0,cat,1\n")
    WeightsByClass(file, ["a"], ["cat"], {})
    assert not file.exists()


def test_an_epoch_is_appended_to_the_table_of_weights_and_nothing_before_it_is_written_again(tmp_path):
    file = tmp_path / "weights_by_class.csv"
    table = WeightsByClass(file, ["a"], ["cat"], {0: torch.tensor([[0.5]])})
    before = file.stat()
    table.add(1, torch.tensor([[0.5]]))
    assert file.stat().st_ino == before.st_ino  # a file that is replaced is another one
    assert file.stat().st_size == before.st_size + len("1,cat,0.5\r\n")


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


def test_the_most_disputed_images_come_first_and_bring_everything_along(random):
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
    disputed = disputed_images.MostDisputed()
    for each in steps:
        disputed.see(each)
        assert len(disputed.kept.images) == EXAMPLES
    expected = Examples.joined(steps).most_disputed(EXAMPLES)
    assert disputed.seen == 30
    for name, column in vars(expected).items():
        assert torch.equal(getattr(disputed.kept, name), column), name
    assert not disputed.kept.images.requires_grad
    assert disputed.kept.teachers.dtype == torch.float32


def test_the_confusion_matrix_counts_as_a_loop_does(random):
    named, labels = torch.randint(K, (2, N), generator=random)
    counts = confusion_matrix(named, labels, K)
    for row in range(K):
        for column in range(K):
            pairs = zip(labels.tolist(), named.tolist(), strict=True)
            assert counts[row, column] == sum(pair == (row, column) for pair in pairs)
    assert shares_of_rows(counts).sum(dim=1).tolist() == pytest.approx([1.0] * K)


def test_the_calibration_error_is_that_of_torchmetrics(random):
    logits, labels = 3 * torch.randn(500, K, generator=random), torch.randint(K, (500,), generator=random)
    expected = multiclass_calibration_error(logits.softmax(dim=1), labels, K, n_bins=BINS, norm="l1")
    found = Reliability.of(logits.double().softmax(dim=1), labels)
    assert found.error == pytest.approx(float(expected), abs=rounding(500))
    assert int(found.samples.sum()) == 500


@pytest.mark.parametrize("mixture", ["probabilities", "logits"])
def test_agreement_and_entropy_of_the_steps_are_those_of_a_loop(random, mixture):
    steps = [step(random), step(random)]
    taught = Teaching.joined([Teaching.of(each, 2.0, mixture) for each in steps])
    found = taught.scalars(("a", "b", "c"))
    labels = torch.cat([each.labels for each in steps]).tolist()
    student = [row.index(max(row)) for each in steps for row in each.student.logits.tolist()]
    weights = [row for each in steps for row in each.weights.tolist()]
    named_together = []
    for each in steps:
        for n in range(N):
            softened = [each.teachers.logits[n, m] / 2 for m in range(M)]
            if mixture == "probabilities":
                softened = [logits.softmax(dim=0) for logits in softened]
            mixed = sum(each.weights[n, m] * softened[m] for m in range(M))
            named_together.append(int(mixed.argmax()))
    assert found["ensemble/train/acc"] == mean_equal(named_together, labels)
    assert found["ensemble/agreement_student"] == mean_equal(named_together, student)
    for m, name in enumerate("abc"):
        named = [row.index(max(row)) for each in steps for row in each.teachers.logits[:, m].tolist()]
        assert found[f"teacher/{name}/agreement_label"] == mean_equal(named, labels)
        assert found[f"teacher/{name}/agreement_student"] == mean_equal(named, student)
        entropy = -sum(row[m] * math.log(row[m]) for row in weights) / len(weights)
        assert found[f"teacher/{name}/weight_entropy"] == pytest.approx(entropy, rel=rounding(2 * N))


def mean_equal(first, second):
    return pytest.approx(sum(a == b for a, b in zip(first, second, strict=True)) / len(first))


def test_a_step_without_teachers_shows_nothing_of_them(random):
    assert Teaching.of(replace(step(random), teachers=None, weights=None), 1.0) is None


def test_agreement_on_validation_images_counts_the_plain_mean_of_probabilities():
    labels = torch.tensor([0, 1])
    student = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    teachers = torch.tensor([[[5.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [1.0, 0.0]]])
    found = agreement_with_teachers(student, labels, teachers, ("a", "b"))
    assert found == {
        "ensemble/val/acc": 1.0, "ensemble/val/agreement_student": 0.5,
        "teacher/a/val/agreement_student": 0.5, "teacher/b/val/agreement_student": 0.5,
    }  # fmt: skip


def test_answers_are_put_together_batch_by_batch(random):
    answers = PredictionBuffer()
    for first in (0, 4):
        index = torch.arange(first, first + 4)
        batch = Batch(torch.rand(4, 3, 2, 2, generator=random), index % K, index, 0, "val")
        answers.add(batch, torch.full((4, K), float(first)))
    index, labels, logits = answers.whole()
    assert index.tolist() == list(range(8))
    assert labels.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert logits[:, 0].tolist() == [0.0] * 4 + [4.0] * 4


def test_a_letter_that_the_first_font_lacks_comes_from_another_one_or_is_a_box_without_a_warning(monkeypatch):
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


@pytest.mark.parametrize("classes", [("cat $a", "dog_{b}", "<i>"), tuple(f"class {k}" for k in range(100))])
def test_every_figure_can_be_drawn_for_few_classes_and_for_many(random, classes):
    k = len(classes)
    logits, labels = torch.randn(60, k, generator=random), torch.randint(k, (60,), generator=random)
    weights = torch.softmax(torch.randn(60, M, generator=random), dim=1)
    teachers = torch.randn(60, M, k, generator=random)
    examples = Examples(torch.rand(60, 3, 8, 8, generator=random), labels, teachers, weights, logits)
    figures = [
        draw_confusion(confusion_matrix(logits.argmax(dim=1), labels, k), classes, "student"),
        draw_reliability(Reliability.of(logits.double().softmax(dim=1), labels), "student"),
        draw_weights_by_class(mean_weights_by_class(weights, labels, k), classes, ["a", "b_1", "$c"]),
        draw_examples(examples.most_disputed(2), ["a", "b_1", "$c"], classes, 4.0),
    ]
    for figure in figures:
        drawn = pixels(figure)
        assert drawn.dtype == np.uint8
        assert drawn.shape[2] == 3
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10
