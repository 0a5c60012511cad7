"""The doctor on teachers: a wrong mean, deviation or class map is found, and no right one is suspected."""

import pytest
import torch
from torch import nn

from amtml_pl.distill.doctor.teachers import agreement, examine_teacher, images_to_examine, teacher_findings
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.live import Teacher

pytestmark = pytest.mark.numbers


class Reads(nn.Module):
    """Names the class that the mean colour says, as long as it is normalised as it was trained."""

    def forward(self, images):
        level = images.mean(dim=(1, 2, 3))[:, None]
        return -(level - torch.tensor([-1.5, -0.5, 0.5, 1.5])).abs()


def coloured(N=256):
    labels = torch.arange(N) % 4
    generator = torch.Generator().manual_seed(0)
    level = 0.5 + 0.2 * (labels - 1.5) + 0.02 * torch.randn(N, generator=generator)
    return level.view(N, 1, 1, 1).expand(N, 3, 4, 4).contiguous(), labels


def statements(mean=0.5, std=0.2):
    teacher = Teacher("t", TappedNetwork(Reads(), mean=[mean] * 3, std=[std] * 3))
    found = examine_teacher(teacher, *coloured(), {"the data set's": ([0.5] * 3, [0.2] * 3)})
    torch.testing.assert_close(teacher.network.mean.flatten(), torch.full((3,), mean))
    return [finding.name for finding in teacher_findings("t", found)], found


def test_a_teacher_that_is_what_it_should_be_has_no_finding():
    found, examination = statements()
    assert found == []
    assert examination.accuracy > 0.95


def test_a_wrong_mean_and_std_are_found_and_the_right_ones_named():
    found, examination = statements(mean=0.2, std=0.4)
    assert found == ["wrong-mean-and-std/t"]
    assert examination.accuracy_with["the data set's"] > 0.95


def test_a_teacher_that_was_trained_here_is_only_measured():
    teacher = Teacher("t", TappedNetwork(Reads(), mean=[0.2] * 3, std=[0.4] * 3))
    found = examine_teacher(teacher, *coloured(), None)
    assert found.accuracy < 0.5
    assert found.accuracy_with == {}
    assert [*teacher_findings("t", found)] == []


def test_agreement_is_the_share_of_images_with_the_same_class():
    logits = torch.zeros(4, 2, 3)
    logits[:, 0, 0] = 1
    logits[:3, 1, 0] = 1
    logits[3, 1, 2] = 1
    torch.testing.assert_close(agreement(logits), torch.tensor([[1.0, 0.75], [0.75, 1.0]]))


# ---- many classes


class Remembers(nn.Module):
    """Names the class that the first two pixels spell, wrongly for some images, as a poor teacher does."""

    def __init__(self, classes, accuracy):
        super().__init__()
        self.classes, self.accuracy = classes, accuracy

    def forward(self, images):
        red, green, luck = (images[:, channel, 0, 0] for channel in range(3))
        label = ((red * 255).round().long() * 16 + (green * 255).round().long()) % self.classes
        neighbour = (label + 1 + (luck * 1000).long() % 9) % self.classes
        named = torch.where(luck < self.accuracy, label, neighbour)
        return nn.functional.one_hot(named, self.classes).float()


def spelled(classes, seed):
    N = images_to_examine(classes)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (N,), generator=generator)
    pixels = torch.stack([labels // 16 / 255, labels % 16 / 255, torch.rand(N, generator=generator)], dim=1)
    return pixels.view(N, 3, 1, 1), labels


@pytest.mark.parametrize("accuracy", [0.2, 0.8])
@pytest.mark.parametrize("classes", [10, 200])
def test_a_poor_teacher_of_many_classes_is_not_suspected_of_a_wrong_class_map(classes, accuracy):
    for seed in range(3):
        network = TappedNetwork(Remembers(classes, accuracy), mean=[0.0] * 3, std=[1.0] * 3)
        found = examine_teacher(Teacher("t", network), *spelled(classes, seed), {})
        assert found.accuracy == pytest.approx(accuracy, abs=0.1)
        assert "wrong-class-map/t" not in [finding.name for finding in teacher_findings("t", found)]


@pytest.mark.parametrize("classes", [10, 200])
def test_a_poor_teacher_of_many_classes_with_a_shuffled_class_map_is_found(classes):
    shuffled = torch.randperm(classes, generator=torch.Generator().manual_seed(5)).tolist()
    network = TappedNetwork(Remembers(classes, 0.4), mean=[0.0] * 3, std=[1.0] * 3)
    found = examine_teacher(Teacher("t", network, shuffled), *spelled(classes, 0), {})
    assert "wrong-class-map/t" in [finding.name for finding in teacher_findings("t", found)]


def test_two_classes_that_changed_places_are_found():
    network = TappedNetwork(Remembers(10, 0.8), mean=[0.0] * 3, std=[1.0] * 3)
    found = examine_teacher(Teacher("t", network, [1, 0, *range(2, 10)]), *spelled(10, 0), {})
    assert [finding.name for finding in teacher_findings("t", found)] == ["wrong-class-map/t"]


def test_more_classes_are_judged_by_more_images():
    assert images_to_examine(10) == 256
    assert images_to_examine(200) == 2000
