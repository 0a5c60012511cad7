"""How the weights of the teachers depend on image and class, against loops over images and teachers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_evaluated_numbers import images_and_labels, own_weights, probabilities

from amtml_pl import load_run
from amtml_pl.evaluate import main
from amtml_pl.results.evaluation.adaptivity import adaptivity
from amtml_pl.results.evaluation.evaluation import evaluate_student
from amtml_pl.results.evaluation.images import own_images
from amtml_pl.runs.evaluation import Evaluation
from amtml_pl.system.records import read_record
from sealing import replace_part

pytestmark = pytest.mark.numbers

N, M, K = 30, 3, 4
TEACHERS, CLASSES = ("a", "b", "c"), ("cat", "dog", "owl", "yak")
WITHIN = 2e-5  # the numbers have five digits


def some_weights(seed):
    """Return weights (N, M), labels (N,) without the class yak, and which teachers are right (N, M)."""
    made = torch.Generator().manual_seed(seed)
    weights = (2 * torch.randn(N, M, generator=made)).softmax(dim=1)
    return weights, torch.randint(K - 1, (N,), generator=made), torch.rand(N, M, generator=made) < 0.6


def mean(values):
    return sum(values) / len(values)


def quantile(values, share):
    """Return a quantile, between two values by a straight line."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(values) - 1)] - ordered[low])


def spread_by_loop(values):
    found = {"mean": mean(values), **{f"p{of}": quantile(values, of / 100) for of in (10, 50, 90)}}
    return pytest.approx(found, abs=WITHIN)


@given(seed=st.integers(0, 2**20))
def test_every_number_equals_loops(seed):
    given_ = some_weights(seed)
    found = adaptivity(*given_, TEACHERS, CLASSES)
    w, labels, right = (each.tolist() for each in (given_[0].double(), *given_[1:]))
    mu = [mean([row[m] for row in w]) for m in range(M)]
    of_class = {k: [row for row, label in zip(w, labels, strict=True) if label == k] for k in set(labels)}
    centre = {k: [mean([row[m] for row in rows]) for m in range(M)] for k, rows in of_class.items()}
    total = mean([(row[m] - mu[m]) ** 2 for row in w for m in range(M)])
    between = mean([(centre[label][m] - mu[m]) ** 2 for label in labels for m in range(M)])
    assert found.entropy == pytest.approx(mean([-sum(x * math.log(x) for x in row) for row in w]), abs=WITHIN)
    assert found.deviation == pytest.approx(math.sqrt(total), abs=WITHIN)
    assert found.between_classes == pytest.approx(between / total, abs=WITHIN)
    disputed = [(row, good) for row, good in zip(w, right, strict=True) if 0 < sum(good) < M]
    assert found.disputed == pytest.approx(len(disputed) / N, abs=WITHIN)
    for number, rows in (
        (found.right, [row for row, _ in disputed]),
        (found.right_constant, [mu] * len(disputed)),
    ):
        pairs = zip(rows, [good for _, good in disputed], strict=True)
        assert number == pytest.approx(
            mean([sum(x * good for x, good in zip(*pair, strict=True)) for pair in pairs]), abs=WITHIN
        )
    assert found.teachers.keys() == set(TEACHERS)
    for m, name in enumerate(TEACHERS):
        assert vars(found.teachers[name]) == spread_by_loop([row[m] for row in w])
        for k, rows in of_class.items():
            assert vars(found.classes[CLASSES[k]][name]) == spread_by_loop([row[m] for row in rows])
    assert found.classes.keys() == {CLASSES[k] for k in of_class}


def test_weights_by_class_alone_have_all_variance_between_classes():
    labels = torch.arange(N) % 2
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])[labels]
    found = adaptivity(weights, labels, weights > 1, TEACHERS, CLASSES)
    assert (found.between_classes, found.deviation) == (
        1.0,
        pytest.approx(0.125 * math.sqrt(2 / 3), abs=WITHIN),
    )
    assert vars(found.classes["dog"]["b"]) == dict.fromkeys(("mean", "p10", "p50", "p90"), 0.5)
    assert (found.disputed, found.right, found.right_constant) == (0.0, None, None)


def test_equal_weights_have_no_variance_to_share():
    weights = torch.full((N, M), 1 / 3)
    found = adaptivity(weights, torch.arange(N) % K, torch.eye(M)[torch.arange(N) % M] > 0, TEACHERS, CLASSES)
    assert (found.deviation, found.between_classes) == (0.0, None)
    assert found.entropy == pytest.approx(math.log(3), abs=WITHIN)
    assert (found.right, found.right_constant) == pytest.approx((1 / 3, 1 / 3), abs=WITHIN)


def test_an_evaluation_measures_the_runs_own_weights(moved, command):
    printed = command(main, f"run={moved}", "latency=false")
    about = read_record(Evaluation, moved / "evaluate.json", fix="").ensemble
    run = load_run(moved)
    images, labels = images_and_labels(run)
    weights = own_weights(run, images)
    right = [probabilities(teacher.load(), images).argmax(axis=1) == labels for teacher in run.teachers]
    disputed = right[0] != right[1]
    found = about.adaptivity
    assert found.deviation == pytest.approx(weights.std(axis=0).max(), rel=1e-3)  # of both: they add up to 1
    assert found.disputed == pytest.approx(disputed.mean(), abs=2 / len(labels))
    for name, own in zip(run.teacher_names, weights.T, strict=True):
        assert found.teachers[name].mean == pytest.approx(own.mean(), abs=1e-3)
        assert found.classes["3"][name].p50 == pytest.approx(quantile(own[labels == 3], 0.5), abs=1e-3)
    of_right = (weights * [*zip(*right, strict=True)]).sum(axis=1)[disputed].mean()
    assert found.right == pytest.approx(of_right, abs=2 / disputed.sum())
    assert f"  weights per image: {found.deviation:.4f} from the mean weights" in printed


def test_weights_that_do_not_change_are_called_equal(moved, command):
    replace_part(moved, "weighting", {"_target_": "amtml_pl.weighting.uniform.UniformWeighting"})
    assert "  weights per image: equal for all images" in command(main, f"run={moved}", "latency=false")


def test_weights_of_batches_have_no_adaptivity(moved):
    replace_part(moved, "loop", {"_target_": "amtml_pl.distill.loops.mtkd_rl.MTKDRL"})
    run = load_run(moved)
    assert evaluate_student(run, own_images(run, "test"), latency=False).ensemble.adaptivity is None


def test_an_earlier_adaptivity_stays_where_it_can_no_longer_be_measured(moved):
    run = load_run(moved)
    before = evaluate_student(run, own_images(run, "test"), latency=False)
    now = before.replaced(ensemble=before.ensemble.replaced(adaptivity=None))
    assert now.with_earlier(before).ensemble.adaptivity == before.ensemble.adaptivity
