"""Mixtures of the teachers' outputs without a student, against loops over images, teachers and classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_evaluated_numbers import images_and_labels, own_weights, probabilities

from amtml_pl import load_run
from amtml_pl.evaluate import main
from amtml_pl.results.evaluation.evaluation import evaluate_student
from amtml_pl.results.evaluation.images import own_images
from amtml_pl.results.evaluation.mixtures import mixture_quality, share_any_right
from amtml_pl.runs.evaluation import MIXTURES, Evaluation
from amtml_pl.system.records import read_record
from amtml_pl.weighting.routed import likeliest_teacher
from sealing import replace_part

pytestmark = pytest.mark.numbers

N, M, K = 40, 3, 5
UNKNOWN = 2**-126  # the probability that counts for a label with none


def some_teachers(seed, *, know_all=True):
    """Return logits (N, M, K), weights (N, M) and labels (N,); teacher m may not know class m."""
    made = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(N, M, K, generator=made)
    if not know_all:
        for m in range(M):
            logits[:, m, m] = -math.inf
    weights = torch.rand(N, M, generator=made).softmax(dim=1)
    return logits, weights, torch.randint(K, (N,), generator=made)


def softmax(row, temperature):
    powers = [math.exp(value / temperature) for value in row]  # exp(-inf) is 0
    return [power / sum(powers) for power in powers]


def mixed(row, weights, temperature, mixture):
    """Return the soft target of an image by its definition."""
    outputs = row if mixture == "logits" else [softmax(z, temperature) for z in row]
    means = [sum(w * each[k] for w, each in zip(weights, outputs, strict=True)) for k in range(K)]
    return softmax(means, temperature) if mixture == "logits" else means


def quality_by_loops(logits, weights, labels, mixture, temperature):
    right, nll, samples = 0, 0.0, (logits.double().tolist(), weights.double().tolist(), labels.tolist())
    for row, w, label in zip(*samples, strict=True):
        target = mixed(row, w, temperature, mixture)
        right += max(range(K), key=target.__getitem__) == label
        nll -= math.log(max(mixed(row, w, 1.0, mixture)[label], UNKNOWN)) / N
    return right / N, nll


@pytest.mark.parametrize(
    ("mixture", "know_all"), [("probabilities", True), ("probabilities", False), ("logits", True)]
)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@given(seed=st.integers(0, 2**20))
def test_accuracy_and_likelihood_of_a_mixture_equal_loops(mixture, know_all, temperature, seed):
    given_ = some_teachers(seed, know_all=know_all)
    found = mixture_quality(*given_, mixture, temperature)
    assert found == pytest.approx(quality_by_loops(*given_, mixture, temperature), rel=1e-5)


def test_a_label_that_only_teachers_without_weight_know_counts_87_nats():
    logits, _, labels = some_teachers(0, know_all=False)
    alone = torch.eye(M)[[0]].expand(N, M)
    acc, nll = mixture_quality(logits, alone, torch.zeros_like(labels), "probabilities", 4.0)
    assert (acc, nll) == (0.0, pytest.approx(126 * math.log(2)))


@pytest.mark.parametrize("know_all", [True, False])
@given(seed=st.integers(0, 2**20))
def test_the_best_teacher_of_each_image_equals_loops(know_all, seed):
    logits, _, labels = some_teachers(seed, know_all=know_all)
    chosen, right = [], 0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        chosen.append(max(range(M), key=lambda m: softmax(row[m], 1.0)[label]))
        right += any(max(range(K), key=z.__getitem__) == label for z in row)
    assert torch.equal(likeliest_teacher(logits, labels), torch.eye(M)[chosen])
    assert share_any_right(logits, labels) == pytest.approx(right / N)


@given(seed=st.integers(0, 2**20), temperature=st.sampled_from((1.0, 4.0)))
def test_no_choice_of_one_teacher_per_image_beats_the_oracles(seed, temperature):
    logits, weights, labels = some_teachers(seed)
    any_choice = torch.eye(M)[weights.argmax(dim=1)]
    acc, nll = mixture_quality(logits, any_choice, labels, "probabilities", temperature)
    assert acc <= share_any_right(logits, labels)
    best = likeliest_teacher(logits, labels)
    assert nll >= mixture_quality(logits, best, labels, "probabilities", temperature)[1]


def best_weights(p, labels):
    """Return weights of two teachers that maximise the likelihood of labels, from a fine grid."""
    own = [each[np.arange(len(labels)), labels] for each in p]
    grid = np.linspace(0.0005, 0.9995, 2000)
    values = [np.log(w * own[0] + (1 - w) * own[1]).sum() + np.log(w * (1 - w)) for w in grid]
    return np.array([grid[np.argmax(values)], 1 - grid[np.argmax(values)]])


def measured_by_hand(p, weights, labels, temperature):
    """Return accuracy at a temperature, and likelihood at 1, of probabilities (N, K) per teacher."""
    hot = [each ** (1 / temperature) for each in p]
    hot = [each / each.sum(axis=1, keepdims=True) for each in hot]
    target = sum(weights[:, [m]] * each for m, each in enumerate(hot))
    plain = sum(weights[:, [m]] * each for m, each in enumerate(p))
    return {
        "acc": pytest.approx((target.argmax(axis=1) == labels).mean(), abs=2 / len(labels)),
        "nll": pytest.approx(-np.log(plain[np.arange(len(labels)), labels]).mean(), rel=1e-3),
    }


def replaced(folder, node, value):
    replace_part(folder, node, value)
    return load_run(folder)


def test_an_evaluation_has_every_mixture_of_the_teachers(moved):
    run = load_run(moved)
    about = evaluate_student(run, own_images(run, "test"), latency=False).ensemble
    images, labels = images_and_labels(run)
    p = [probabilities(teacher.load(), images) for teacher in run.teachers]
    val = run.split("val")
    val_images, val_labels = val.stored.images[val.rows] / 255, val.stored.labels[val.rows].numpy()
    val_p = [probabilities(teacher.load(), val_images) for teacher in run.teachers]
    own = np.stack([each[np.arange(len(labels)), labels] for each in p], axis=1)
    ones = np.ones((len(labels), 1))
    best = np.argmax([(each.argmax(axis=1) == val_labels).mean() for each in val_p])
    weights = {
        "uniform": ones * [0.5, 0.5],
        "per_teacher": ones * best_weights(val_p, val_labels),
        "best_single": ones * np.eye(2)[best],
        "own_mean": ones * own_weights(run, images).mean(axis=0),
        "own": own_weights(run, images),
        "likeliest": np.eye(2)[own.argmax(axis=1)],
    }
    assert (about.mixture, about.temperature, about.absent) == ("probabilities", 4.0, {})
    assert about.mixtures.keys() == MIXTURES.keys()
    for name, each in weights.items():
        found = about.mixtures[name]
        assert {"acc": found.acc, "nll": found.nll} == measured_by_hand(p, each, labels, 4.0), name
        assert [*found.mean_weight.values()] == pytest.approx(each.mean(axis=0), abs=2e-3), name
        assert found.reads_labels is (name == "likeliest")
    right = np.mean([any(each[n].argmax() == label for each in p) for n, label in enumerate(labels)])
    assert about.mixtures["any_right"].acc == pytest.approx(right, abs=2 / len(labels))
    assert about.mixtures["any_right"].nll is None


def test_weights_that_read_labels_are_measured_and_marked_but_not_the_ensemble(moved):
    run = replaced(moved, "weighting", {"_target_": "amtml_pl.weighting.confidence.ConfidenceWeighting"})
    about = evaluate_student(run, own_images(run, "test"), latency=False).ensemble
    assert about.weights == "uniform"
    assert about.mixtures["own"].reads_labels
    assert about.mixtures["own"].acc >= about.mixtures["uniform"].acc
    assert list(about.mean_weight.values()) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("node", "value", "reason"),
    [
        ("loop", {"_target_": "amtml_pl.distill.loops.mtkd_rl.MTKDRL"}, "only during training"),
        (
            "weighting",
            {"_target_": "amtml_pl.weighting.aekd.AekdWeighting", "temperature": 4.0},
            "AekdWeighting computes one set of weights per batch",
        ),
    ],
)
def test_weights_that_no_single_image_has_are_left_out_with_the_reason(moved, node, value, reason):
    run = replaced(moved, node, value)
    about = evaluate_student(run, own_images(run, "test"), latency=False).ensemble
    assert reason in about.absent["own"]
    assert about.mixtures.keys() == MIXTURES.keys() - {"own", "own_mean"}


def test_weights_are_not_measured_on_the_images_that_they_are_fitted_to(moved):
    run = load_run(moved)
    about = evaluate_student(run, own_images(run, "val"), latency=False).ensemble
    assert about.absent.keys() == {"per_teacher", "best_single"}
    assert "cannot measure them too" in about.absent["best_single"]


def test_the_table_is_printed_and_read_back_with_the_reasons(moved, command):
    printed = command(main, f"run={moved}", "latency=false")
    found = read_record(Evaluation, moved / "evaluate.json", fix="")
    assert "what decides: the teachers' mixtures (acc at temperature 4, NLL at 1)" in printed
    lines = [line.split("│") for line in printed.splitlines() if line[:1] == "│"]
    rows = {line[1].strip(): line[2:4] for line in lines}
    equal, own = (found.ensemble.mixtures[name].acc for name in ("uniform", "own"))
    cells = [cell.strip() for cell in rows["weights per image (GatedWeighting)"]]
    assert cells == [f"{own:.4f}", f"{own - equal:+.4f}"]
    assert "any teacher right (reads labels)" in rows
    assert max(map(len, printed.splitlines()[: printed.splitlines().index("by class")])) <= 80


def test_earlier_mixtures_stay_where_they_can_no_longer_be_measured(moved):
    run = load_run(moved)
    before = evaluate_student(run, own_images(run, "test"), latency=False)
    lost = {name: each for name, each in before.ensemble.mixtures.items() if name != "per_teacher"}
    now = before.replaced(ensemble=before.ensemble.replaced(mixtures=lost, absent={"per_teacher": "gone"}))
    whole = now.with_earlier(before)
    assert whole.ensemble.mixtures == before.ensemble.mixtures
    assert whole.ensemble.absent == {"per_teacher": "gone (the numbers are those of an earlier evaluation)"}
