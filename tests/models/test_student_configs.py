"""Every file of conf/student is a network that runs and costs what its header says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from amtml_pl.models.taps import NetworkCost, TappedNetwork, cost, tap_shapes

STUDENTS = Path(__file__).parents[2] / "conf" / "student"
NAMES = sorted(path.stem for path in STUDENTS.glob("*.yaml"))
# Per class its stages, and the last of them with its side for 32 pixels.
STAGES = {
    "CifarResNet": (("layer1", "layer2", "layer3"), 8),
    "WideResNet": (("layer1", "layer2", "layer3"), 8),
    "CifarVgg": (("stage1", "stage2", "stage3", "stage4", "stage5"), 4),
    "DenseNet": (("features.denseblock1", "features.denseblock4", "features"), 4),
    "MobileNetV2": (("features.3", "features.6", "features.10", "features.18"), 4),
    "ShuffleNetV2": (("stage2", "stage3", "stage4", "conv5"), 4),
    "ResNet": (("layer1", "layer2", "layer3", "layer4"), 4),
}


def student(name, num_classes):
    """The network of a student file, built as an entry point builds it."""
    if name.startswith("timm_"):
        pytest.importorskip("timm")
    with initialize_config_dir(str(STUDENTS.parent), version_base="1.3"):
        config = compose(overrides=[f"+student={name}", f"+dataset.num_classes={num_classes}"])
    return instantiate(config.student.network, _convert_="all")


def test_there_are_students():
    assert {"resnet8", "resnet20", "resnet110", "wrn_40_2", "vgg8", "densenet121", "timm_resnet18"} <= set(
        NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_student_file_gives_a_network_that_costs_what_its_header_says(name):
    with torch.device("meta"):
        network = TappedNetwork(student(name, 100), mean=[0.5] * 3, std=[0.5] * 3)
    header = (STUDENTS / f"{name}.yaml").read_text(encoding="utf-8")
    stated = re.search(
        r"^# ([\d,]+) parameters, ([\d,]+) multiply-accumulates for a 32.32 image", header, re.M
    )
    measured = cost(network, 32)
    assert stated is not None, f"expected in the header: {measured}"
    assert measured == NetworkCost(*(int(number.replace(",", "")) for number in stated.groups()))


@pytest.mark.parametrize(
    "name",
    [
        "resnet8x4",
        "wrn_16_2",
        "vgg13",
        "densenet121",
        "mobilenet_v2",
        "shufflenet_v2",
        "resnet18",
        "timm_resnet18",
    ],
)
def test_stages_can_be_tapped_and_leave_a_map_of_32_pixels(name):
    with torch.device("meta"):
        network = student(name, 100)
        taps, side = STAGES[type(network).__name__]
        tapped = TappedNetwork(network, mean=[0.5] * 3, std=[0.5] * 3, taps=taps)
    classes, shapes = tap_shapes(tapped, 32)
    assert classes == 100
    assert shapes[taps[-1]][1:] == (side, side)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(
    "name", ["resnet8_thin", "wrn_16_1", "vgg8_quarter", "shufflenet_v2", "mobilenet_v2"]
)
def test_a_student_computes_at_both_image_sizes(name, size):
    network = TappedNetwork(student(name, 7), mean=[0.5] * 3, std=[0.5] * 3).eval()
    logits = network(torch.rand(1, 3, size, size)).logits
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()
