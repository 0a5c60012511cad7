import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers import live
from amtml_pl.teachers.live import LiveTeachers, Teacher, measure_accuracy, measured_accuracy, weights_digest
from amtml_pl.types import Batch

pytestmark = pytest.mark.numbers

DATA = {"digest": "abc", "split": "val", "seed": 0, "val_size": 0.1}


def network(classes=4, *, seed=0, taps=("conv",), mean=0.5, stride=1):
    """Convolution, batch norm, dropout, pooling, classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential()
        layers.add_module("conv", nn.Conv2d(3, 5, 3, stride))
        layers.add_module("norm", nn.BatchNorm2d(5))
        layers.add_module("rest", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout()))
        layers.add_module("fc", nn.Linear(5, classes))
    return TappedNetwork(layers, mean=[mean] * 3, std=[0.25] * 3, taps=taps)


def batch(number=6):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(number, 3, 8, 8, generator=generator)
    return Batch(images, torch.arange(number) % 4, torch.arange(number), view=0, split="val")


def test_outputs_are_stacked_in_teacher_order_under_flat_names():
    first, second = network(seed=1), network(seed=2, taps=("conv", "fc"))
    outputs = LiveTeachers([Teacher("big", first), Teacher("small", second)])(batch())
    assert outputs.names == ("big", "small")
    assert outputs.logits.shape == (6, 2, 4)
    for position, alone in enumerate((first, second)):
        torch.testing.assert_close(outputs.logits[:, position], alone.eval()(batch().images).logits)
    shapes = {name: tuple(hint.shape[1:]) for name, hint in outputs.hints.items()}
    assert shapes == {"big/conv": (5, 6, 6), "small/conv": (5, 6, 6), "small/fc": (4, 1, 1)}


@pytest.mark.parametrize("names", [[], ["big", "big"]])
def test_no_teacher_and_two_of_one_name_are_refused(names):
    with pytest.raises(UserError, match="expected one or more different names"):
        LiveTeachers([Teacher(name, network()) for name in names])


def test_shapes_are_known_without_a_batch():
    teacher = Teacher("small", network(taps=("conv", "fc")))
    hints = LiveTeachers([teacher])(batch()).hints
    assert teacher.hint_shapes(8) == {name: tuple(hint.shape[1:]) for name, hint in hints.items()}
    assert list(teacher.hint_shapes(8)) == list(hints)


def test_a_student_learns_from_the_outputs_and_the_teachers_do_not():
    teachers = LiveTeachers([Teacher("big", network())])
    before = weights_digest(teachers.teachers[0].network)
    outputs = teachers(batch())
    assert not outputs.logits.requires_grad
    assert not outputs.logits.is_inference()
    assert not outputs.hints["big/conv"].is_inference()

    student = network(seed=5)
    learned = student(batch().images)
    log_p, log_q = learned.logits.log_softmax(1), outputs.logits[:, 0].log_softmax(1)
    soft = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    scale = torch.ones((), requires_grad=True)  # multiplying by it saves the hint for the backward
    (soft + F.mse_loss(learned.features["conv"], scale * outputs.hints["big/conv"])).backward()
    assert all(parameter.grad is not None for parameter in student.network.conv.parameters())
    assert scale.grad is not None
    assert all(parameter.grad is None for parameter in teachers.teachers[0].network.parameters())
    assert weights_digest(teachers.teachers[0].network) == before


def test_teachers_are_frozen_and_a_switch_to_training_mode_is_noticed():
    teacher = Teacher("big", network().train())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert torch.equal(teacher(batch().images).logits, teacher(batch().images).logits)  # no dropout
    teacher.network.network.norm.train()
    with pytest.raises(RuntimeError, match="Teacher 'big' is in training mode"):
        LiveTeachers([teacher])(batch())


def test_a_class_map_puts_the_outputs_in_the_order_of_our_classes():
    many, mapped = network(classes=9), [7, 0, 8, 3]
    outputs = LiveTeachers([Teacher("big", many, class_map=mapped)])(batch())
    torch.testing.assert_close(outputs.logits[:, 0], many(batch().images).logits[:, mapped])


@pytest.mark.parametrize(
    ("classes", "class_map", "text"),
    [
        (9, None, r"(?s)number of outputs \(got 9, expected 4, one per class\).*teacher.big.class_map"),
        (9, [0, 1, 2], r"number of class_map entries \(got 3, expected 4"),
        (9, [0, None, None, 9], r"contains invalid .*got \[9\], expected 0 to 8"),
        (9, [0, 1, 2, 9], r"teacher.big.class_map contains invalid .*got \[9\], expected 0 to 8"),
        (9, [0, 1, 2, -1], r"invalid output indices \(got \[-1\]"),
    ],
)
def test_outputs_that_do_not_fit_the_classes_are_refused(classes, class_map, text):
    Teacher("big", network(9), [0, 8, 2, 4]).check_classes(4, 8)
    teacher = Teacher("big", network(classes), class_map)
    with pytest.raises(UserError, match=text):
        teacher.check_classes(4, 8)


@pytest.mark.parametrize(
    ("name", "class_map", "text"),
    [
        ("big", [2, None, 2, None], r"more than once \(repeated: \[2\]"),
        ("big", [None, 2, None], r"too few classes \(got 1, expected 2 or more\)"),
        ("big", [0, 2, 2, 1], r"teacher.big.class_map .* more than once \(repeated: \[2\]"),
        ("a/b", None, "name of a teacher is not valid .got 'a/b'"),
    ],
)
def test_a_repeated_output_and_a_name_that_breaks_flat_names_are_refused(name, class_map, text):
    with pytest.raises(UserError, match=text):
        Teacher(name, network(), class_map)


def rows(start, stop):
    whole, chosen = batch(50), slice(start, stop)
    return Batch(whole.images[chosen], whole.labels[chosen], whole.index[chosen], view=0, split="val")


def test_accuracy_is_the_same_for_batches_of_any_size():
    trained = network(seed=3)
    expected = (trained.eval()(batch(50).images).logits.argmax(1) == batch(50).labels).double().mean()
    trained.train()
    assert measure_accuracy(trained, [rows(0, 50)]) == pytest.approx(float(expected))
    assert measure_accuracy(trained, [rows(0, 49), rows(49, 50)]) == pytest.approx(float(expected))
    assert trained.training
    assert measure_accuracy(Teacher("big", trained), [rows(0, 50)]) == pytest.approx(float(expected))


def test_accuracy_of_nothing_is_refused():
    with pytest.raises(UserError, match="cannot be measured without images"):
        measure_accuracy(network(), [])


def never():
    raise AssertionError("the batches were read a second time")
    yield


@pytest.mark.parametrize("changed", [{"seed": 1}, {"split": "test"}])
def test_another_teacher_or_other_images_are_measured_anew(tmp_path: Path, changed):
    measured_accuracy(lambda: Teacher("big", network()), [batch()], tmp_path, DATA)
    with pytest.raises(AssertionError, match="a second time"):
        measured_accuracy(lambda: Teacher("big", network()), never(), tmp_path, DATA | changed)


def test_accuracy_is_measured_once_and_then_read_unless_the_record_is_damaged(tmp_path: Path):
    first = measured_accuracy(lambda: Teacher("big", network()), [batch()], tmp_path, DATA)
    (record,) = tmp_path.iterdir()
    assert json.loads(record.read_text())["accuracy"] == first
    record.write_text('{"accuracy": null}')
    assert measured_accuracy(lambda: Teacher("big", network()), [batch()], tmp_path, DATA) == first
    assert measured_accuracy(never, never(), tmp_path, DATA) == first


def test_features_are_pooled_before_anything_reads_them():
    whole, pooled = Teacher("t", network()), Teacher("t", network(), pool=2)
    assert pooled.hint_shapes(8) == {"t/conv": (5, 2, 2)}
    images = batch().images
    expected = torch.nn.functional.adaptive_avg_pool2d(whole(images).features["conv"], 2)
    torch.testing.assert_close(pooled(images).features["conv"], expected)
    assert torch.equal(pooled(images).logits, whole(images).logits)
    larger_grid = Teacher("t", network(), pool=100)  # keeps the feature
    assert larger_grid.hint_shapes(8) == {"t/conv": (5, 6, 6)}
    assert larger_grid(images).features["conv"].shape == (6, 5, 6, 6)


def test_a_teacher_below_the_demanded_accuracy_is_refused_with_likely_causes():
    live.check_accuracy("big", 0.7, 0.7, "val")
    expected = (
        r"'big' is too low on the val split \(got 0.1000, expected at least 0.7000\)"
        r".*mean, std, class_map or network weights"
    )
    with pytest.raises(UserError, match=expected):
        live.check_accuracy("big", 0.1, 0.7, "val")


def test_the_weights_digest_sees_every_value_name_type_and_shape():
    def digest(**tensors):
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_digest(module)

    ones = torch.ones(4)
    single = (ones, ones * 2, ones.reshape(2, 2), ones.bfloat16(), torch.tensor(1))
    variants = [*(digest(a=tensor) for tensor in single), digest(b=ones), digest(a=ones, b=ones), digest()]
    assert len(set(variants)) == len(variants)
    assert digest(a=ones, b=ones * 2) == digest(b=ones * 2, a=ones)
    assert digest(a=torch.arange(6).view(2, 3).t()) == digest(a=torch.arange(6).view(2, 3).t().contiguous())


def test_a_class_that_the_teacher_does_not_know_has_probability_0_and_does_not_count_as_wrong():
    teacher = Teacher("big", network(3), [2, None, 0, None])
    found, whole = teacher(batch().images).logits, teacher.network(batch().images).logits
    assert torch.equal(found[:, [0, 2]], whole[:, [2, 0]])
    assert found.softmax(dim=1)[:, [1, 3]].eq(0).all()
    assert teacher.known_classes == [0, 2]
    known = [row for row, label in enumerate(batch().labels.tolist()) if label in (0, 2)]
    right = [int(found[row].argmax()) == int(batch().labels[row]) for row in known]
    assert measure_accuracy(teacher, [batch()]) == sum(right) / len(known)
