"""The doctor on teachers: a wrong mean, deviation or class map is found, and no right one is suspected."""

import pytest
import torch
from torch import nn

from amtml_pl.distill.doctor.teachers import (
    examine_teacher,
    images_to_examine,
    prediction_agreement,
    teacher_findings,
)
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.live import Teacher
from amtml_pl.types import TeacherOutputs

pytestmark = pytest.mark.numbers


class ByColour(nn.Module):
    """Predicts the class of the mean colour, if images are normalised as in training."""

    def forward(self, images):
        level = images.mean(dim=(1, 2, 3))[:, None]
        return -(level - torch.tensor([-1.5, -0.5, 0.5, 1.5])).abs()


def coloured(N=256):
    labels = torch.arange(N) % 4
    generator = torch.Generator().manual_seed(0)
    level = 0.5 + 0.2 * (labels - 1.5) + 0.02 * torch.randn(N, generator=generator)
    return level.view(N, 1, 1, 1).expand(N, 3, 4, 4).contiguous(), labels


RIGHT = {"dataset.mean and dataset.std": ([0.5] * 3, [0.2] * 3)}


@pytest.mark.parametrize(
    ("mean", "std", "others", "names"),
    [(0.5, 0.2, RIGHT, []), (0.2, 0.4, RIGHT, ["wrong-mean-and-std/t"]), (0.2, 0.4, None, [])],
    ids=["right", "wrong", "trained here"],
)
def test_wrong_statistics_are_found_and_restored(mean, std, others, names):
    teacher = Teacher("t", TappedNetwork(ByColour(), mean=[mean] * 3, std=[std] * 3))
    found = examine_teacher(teacher, *coloured(), others)
    torch.testing.assert_close(teacher.network.mean.flatten(), torch.full((3,), mean))
    assert [finding.name for finding in teacher_findings("t", found)] == names
    assert (found.accuracy > 0.95) is (mean == 0.5)
    assert (found.accuracy_with == {}) is (others is None)
    assert not names or found.accuracy_with["dataset.mean and dataset.std"] > 0.95


def test_agreement_is_the_share_of_images_with_the_same_class():
    logits = torch.zeros(4, 2, 3)
    logits[:, 0, 0] = 1
    logits[:3, 1, 0] = 1
    logits[3, 1, 2] = 1
    assert prediction_agreement(TeacherOutputs(("a", "b"), logits)) == {"a and b": 0.75}


# ---- many classes


class ByPixels(nn.Module):
    """Predicts the class that two pixel values encode, and a neighbour of it for some images."""

    def __init__(self, classes, accuracy):
        super().__init__()
        self.classes, self.accuracy = classes, accuracy

    def forward(self, images):
        red, green, luck = (images[:, channel, 0, 0] for channel in range(3))
        label = ((red * 255).round().long() * 16 + (green * 255).round().long()) % self.classes
        neighbour = (label + 1 + (luck * 1000).long() % 9) % self.classes
        named = torch.where(luck < self.accuracy, label, neighbour)
        return nn.functional.one_hot(named, self.classes).float()


def examined(classes, accuracy, seed=0, class_map=None):
    """Examine such a teacher; return its examination and the names of its findings."""
    generator, N = torch.Generator().manual_seed(seed), images_to_examine(classes)
    labels = torch.randint(classes, (N,), generator=generator)
    pixels = torch.stack([labels // 16 / 255, labels % 16 / 255, torch.rand(N, generator=generator)], dim=1)
    network = TappedNetwork(ByPixels(classes, accuracy), mean=[0.0] * 3, std=[1.0] * 3)
    found = examine_teacher(Teacher("t", network, class_map), pixels.view(N, 3, 1, 1), labels, {})
    return found, [finding.name for finding in teacher_findings("t", found)]


@pytest.mark.parametrize("accuracy", [0.2, 0.8])
@pytest.mark.parametrize("classes", [10, 200])
def test_a_poor_teacher_of_many_classes_is_not_suspected_of_a_wrong_class_map(classes, accuracy):
    for seed in range(3):
        found, names = examined(classes, accuracy, seed)
        assert found.accuracy == pytest.approx(accuracy, abs=0.1)
        assert "wrong-class-map/t" not in names


@pytest.mark.parametrize("classes", [10, 200])
def test_a_poor_teacher_of_many_classes_with_a_shuffled_class_map_is_found(classes):
    shuffled = torch.randperm(classes, generator=torch.Generator().manual_seed(5)).tolist()
    assert "wrong-class-map/t" in examined(classes, 0.4, class_map=shuffled)[1]


def test_two_classes_that_changed_places_are_found():
    assert examined(10, 0.8, class_map=[1, 0, *range(2, 10)])[1] == ["wrong-class-map/t"]
