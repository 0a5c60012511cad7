"""Every number of an evaluation equals its definition, computed in float64 from logits and pixels."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torchvision.utils import save_image

from amtml_pl import load_run
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.evaluation import latency
from amtml_pl.results.evaluation.corruptions import CORRUPTIONS, corrupt
from amtml_pl.results.evaluation.evaluation import corrupted_accuracy, evaluate_student
from amtml_pl.results.evaluation.images import other_images, own_images
from amtml_pl.results.evaluation.logits import precision_of
from rounding import rounding
from sealing import seal_again

pytestmark = pytest.mark.numbers


def changed(folder, **settings):
    """Return the run with other values in its configuration."""
    config = OmegaConf.load(folder / "config.yaml")
    for place, value in settings.items():
        OmegaConf.update(config, place.replace("__", "."), value)
    OmegaConf.save(config, folder / "config.yaml")
    seal_again(folder)
    return load_run(folder)


def images_and_labels(run):
    rows = run.split("test")
    return rows.stored.images[rows.rows] / 255, rows.stored.labels[rows.rows].numpy()


def few_images(run, number):
    """Return the first test images of a run, to be evaluated."""
    whole = own_images(run, "test")
    rows = replace(whole.rows, rows=whole.rows.rows[:number])
    return replace(whole, rows=rows, labels=whole.labels[:number])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def probabilities(network, images):
    return softmax(network(images).logits.double().numpy())


def close_calls(p):
    """Return the share of images whose class, bin or place among five a rounded sum could change."""
    ranked, within = -np.sort(-p, axis=1), 2 * rounding(128)
    to_edge = np.abs(ranked[:, 0] * 15 - np.round(ranked[:, 0] * 15)) / 15
    return (np.minimum.reduce([*(ranked[:, [0, 4]] - ranked[:, [1, 5]]).T, to_edge]) <= within).mean()


def own_weights(run, images):
    """Return the weights of the gate, from the tensors of the checkpoint."""
    state = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    A, a, center, scale = (
        state[f"weighting.gate.{name}"] for name in ("matrix", "offset", "center", "scale")
    )
    logits = torch.stack([teacher.load()(images).logits for teacher in run.teachers], dim=1)
    inputs = torch.cat([logits, logits.logsumexp(dim=2, keepdim=True)], dim=2).flatten(1)
    return softmax(((inputs - center) / scale @ A.T + a).double().numpy())


def measures(p, labels, student):
    """Return each measure as `docs/evaluate.md` defines it."""
    N, K = p.shape
    named, confidence = p.argmax(axis=1), p.max(axis=1)
    own = p[np.arange(N), labels]
    place = np.minimum((confidence * 15).astype(int), 14)
    gaps = [(confidence - (named == labels))[place == k].sum() for k in range(15)]
    return {
        "acc": (named == labels).mean(),
        "acc_top5": ((p > own[:, None]).sum(axis=1) < 5).mean(),
        "nll": -np.log(own).mean(),
        "ece": np.abs(gaps).sum() / N,
        "brier": ((p - np.eye(K)[labels]) ** 2).sum(axis=1).mean(),
        "agreement": (named == student.argmax(axis=1)).mean(),
        "kl": (p * np.log(p / student)).sum(axis=1).mean(),
    }


@pytest.mark.parametrize("mixture", ["probabilities", pytest.param("logits", marks=pytest.mark.slow)])
def test_measures_of_student_teachers_and_ensemble_equal_their_definitions(moved, mixture):
    run = changed(moved, loss__kd__mixture=mixture)
    found = evaluate_student(run, own_images(run, "test"), latency=False)
    images, labels = images_and_labels(run)
    student = probabilities(run.student(), images)
    teachers = [probabilities(teacher.load(), images) for teacher in run.teachers]
    weights = own_weights(run, images)
    assert found.ensemble.mixture == mixture
    assert list(found.ensemble.mean_weight.values()) == pytest.approx(weights.mean(axis=0), rel=1e-4)
    mixed = teachers if mixture == "probabilities" else np.log(teachers)
    parts = [weights[:, [m]] * p for m, p in enumerate(mixed)]
    ensemble = sum(parts) if mixture == "probabilities" else softmax(sum(parts))
    whose = ["test", *(f"teacher/{name}/test" for name in run.teacher_names), "ensemble/test"]
    expected = {}
    for who, p in zip(whose, [student, *teachers, ensemble], strict=True):
        within = 2 * close_calls(p) + 1e-6
        for name, value in measures(p, labels, student).items():
            expected[f"{who}/{name}"] = pytest.approx(value, rel=1e-4, abs=within)
    del expected["test/agreement"], expected["test/kl"]
    assert found.metrics == expected
    tensors = load_file(moved / "student.safetensors").values()
    assert found.size.bytes == sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    ("precision", "computed"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_the_precision_is_the_runs_own(moved, precision, computed):
    """Every convolution and classifier is checked, with and without corruptions."""
    run, given = changed(moved, trainer__precision=precision), []
    images = few_images(run, 8)

    def note(module, _, output):
        is_layer = isinstance(module, nn.Conv2d | nn.Linear)
        if is_layer and len(output) == len(images):  # operations are counted with other images
            given.append(output.dtype)

    hook = register_module_forward_hook(note)
    try:
        evaluate_student(run, images, teachers=False, latency=False, corruptions=True)
    finally:
        hook.remove()
    layers = sum(isinstance(part, nn.Conv2d | nn.Linear) for part in run.student().modules())
    assert given == [computed] * layers * (1 + 5 * len(CORRUPTIONS))
    assert torch.is_autocast_enabled("cpu") is False


class Seeing(nn.Module):
    """Remember all input images."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return images.flatten(1)[:, 1000:1010]


def test_every_corruption_and_severity_is_measured_with_the_seed(moved):
    run = load_run(moved)
    images = few_images(run, 24)
    network = Seeing()
    blind = TappedNetwork(network, mean=[0, 0, 0], std=[1, 1, 1])
    found = corrupted_accuracy(blind, images, precision_of(run), seed=3)
    pixels, labels = (each[:24] for each in images_and_labels(run))
    accuracies = []
    for kind in CORRUPTIONS:
        for severity in (1, 2, 3, 4, 5):
            with torch.inference_mode():
                expected = corrupt(pixels, torch.arange(len(pixels)), kind, severity, seed=3)
            shown = network.seen.pop(0)
            assert torch.equal(shown, expected), (kind, severity)
            named = expected.flatten(1)[:, 1000:1010].argmax(dim=1).numpy()
            accuracies.append((named == labels).mean())
            assert found.acc[kind][severity - 1] == pytest.approx(accuracies[-1])
    assert found.mean_acc == pytest.approx(np.mean(accuracies))
    assert found.seed == 3


def test_labels_of_another_data_set_follow_the_runs_class_names(moved, tmp_path):
    """The folders, in reverse order of the run's classes, hold what the student predicts."""
    run = load_run(moved)
    names = [f"c{9 - k}" for k in range(10)]
    dataset = run.record.dataset.replaced(classes=tuple(names))
    run = replace(run, record=run.record.replaced(dataset=dataset))
    pixels, _ = images_and_labels(run)
    guesses = run.student()(pixels).logits.argmax(dim=1).tolist()
    for name in names:
        (tmp_path / "others" / "test" / name).mkdir(parents=True)
        save_image(pixels[0], tmp_path / "others" / "test" / name / "0.png")  # a class has an image at least
    for row, guess in enumerate(guesses):
        save_image(pixels[row], tmp_path / "others" / "test" / names[guess] / f"{row}.png")
    source = {
        "_target_": "amtml_pl.data.datasets.image_folder.ImageFolder", "folder": f"{tmp_path}/others",
        "image_size": 32, "splits": {"train": None, "test": "test"},
    }  # fmt: skip
    dataset = {"name": "others", "num_classes": 10, "image_size": 32, "source": source}
    found = evaluate_student(run, other_images(run, dataset, "test"), teachers=False, latency=False)
    assert found.metrics["test/acc"] == pytest.approx(360 / 369)  # all but what lies in nine other folders
    expected = {}
    for k, name in enumerate(names):
        images = guesses.count(k) + (k != guesses[0])
        expected[name] = {"acc": guesses.count(k) / images, "images": images}
    assert {name: of.model_dump() for name, of in found.classes.items()} == expected


@pytest.mark.parametrize(("slow", "repetitions"), [(2.0, 9), (1e-4, 3)])
def test_a_latency_is_per_image_with_fewer_repetitions_if_slow(monkeypatch, slow, repetitions):
    monkeypatch.setattr(latency, "SLOW_SECONDS", slow)
    found = latency.time_per_image(lambda images: time.sleep(0.02), 8, 4)
    assert 2.5 <= found.ms_per_image < 10
    assert found.repetitions == repetitions
