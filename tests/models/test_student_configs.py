"""Every file of conf/student is a network that runs and costs what its header says."""

import re

import pytest
import torch

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.models.taps import NetworkCost, TappedNetwork, cost

STUDENTS = config_directory() / "student"
NAMES = sorted(path.stem for path in STUDENTS.glob("*.yaml"))


@pytest.fixture
def student(configure):
    """Build a network of conf/student; all of them are composed at once."""

    def made(name, num_classes):
        if name.startswith(("timm_", "vit_")):
            pytest.importorskip("timm")
        config = configure(f"teacher=[{','.join(NAMES)}]", f"dataset.num_classes={num_classes}")
        return TappedNetwork(build_object(config.teacher[name].network), mean=[0.5] * 3, std=[0.5] * 3)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_student_file_gives_a_network_that_costs_what_its_header_says(student, name):
    with torch.device("meta"):
        measured = cost(student(name, 100), 32)
    header = (STUDENTS / f"{name}.yaml").read_text(encoding="utf-8")
    figures = r"^# ([\d,]+) parameters, ([\d,]+) multiply-accumulates for a 32.32 image"
    stated = re.search(figures, header, re.M)
    assert stated is not None, f"expected in the header: {measured}"
    assert measured == NetworkCost(*(int(number.replace(",", "")) for number in stated.groups()))


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", ["resnet8_thin", "wrn_10_1", "vgg8_quarter", "shufflenet_v2"])
def test_a_student_computes_at_both_image_sizes(student, name, size):
    logits = student(name, 7).eval()(torch.rand(1, 3, size, size)).logits
    assert logits.shape == (1, 7)
    assert logits.isfinite().all()
