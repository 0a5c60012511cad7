"""Names of hints, and the reductions that they name."""

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.hint import HintSpec, attention_map
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.live import Teacher

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize("name", ["layer2", "layer2@4", "layer2@attention", "features.denseblock1@1"])
def test_a_name_is_parsed_and_written_back(name):
    assert str(HintSpec.parse(name)) == name


@pytest.mark.parametrize("name", ["layer2@", "layer2@0", "layer2@big", "layer2@-1"])
def test_another_reduction_is_refused_with_the_right_ones(name):
    with pytest.raises(
        UserError, match=r"expected a number or 'attention'.*\n.*layer2@4 to pool.* or layer2@attention"
    ):
        HintSpec.parse(name)


def test_an_attention_map_is_where_the_feature_is_large_and_of_length_one():
    feature = torch.randn(3, 5, 4, 2)
    found = attention_map(feature)
    for b in range(3):
        naive = torch.stack([feature[b, :, h, w].square().mean() for h in range(4) for w in range(2)])
        torch.testing.assert_close(found[b].flatten(), naive / naive.square().sum().sqrt())
    assert torch.isfinite(attention_map(torch.zeros(1, 2, 2, 2))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.0, 300.0])
def test_an_attention_map_of_half_precision_is_that_of_the_same_numbers_in_float32(dtype, value):
    feature = torch.full((2, 3, 4, 4), value, dtype=dtype)
    found = attention_map(feature)
    torch.testing.assert_close(found, torch.full((2, 1, 4, 4), 0.25 if value else 0.0))
    torch.testing.assert_close(found, attention_map(feature.float()))


def test_a_teacher_gives_several_readings_of_one_module():
    hints = ("layer2", "layer2@4", "layer2@attention", "layer3@1")
    plain = CifarResNet(8, 5, [4, 4, 8, 8])
    network = TappedNetwork(plain, mean=[0.5] * 3, std=[0.2] * 3, taps=["layer2", "layer3"])
    teacher = Teacher("t", network, pool=8, hints=hints)
    outputs = teacher(torch.rand(2, 3, 32, 32))
    shapes = {name: tuple(hint.shape[1:]) for name, hint in outputs.features.items()}
    assert shapes == {
        "layer2": (8, 8, 8), "layer2@4": (8, 4, 4), "layer2@attention": (1, 16, 16), "layer3@1": (8, 1, 1),
    }  # fmt: skip
    assert teacher.hint_shapes(32) == {f"t/{name}": shape for name, shape in shapes.items()}
