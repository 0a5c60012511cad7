"""Memory layout and compilation change the speed of a network and nothing else."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.layout import SubsampledConv2d, local_batch_norm, set_execution, set_layout
from amtml_pl.models.taps import TappedNetwork
from rounding import assert_rounded_alike

pytestmark = pytest.mark.numbers


class Short(nn.Module):
    """A residual network with one of each operation: fewer kernels compile sooner."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU())
        self.layer3 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.fc = nn.Linear(16, 10)

    def forward(self, images):
        first = self.layer1(self.conv1(images))
        return self.fc((first + self.layer3(first)).mean(dim=(2, 3)))


def tapped(widths=(16, 16, 32, 64), *, short=False):
    torch.manual_seed(0)
    network = Short() if short else CifarResNet(8, 10, widths=widths)
    return TappedNetwork(network, mean=[0.5] * 3, std=[0.25] * 3, taps=["layer1", "layer3"])


def outputs_and_gradient(network):
    images = torch.rand(13, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    outputs = network(images)
    (outputs.logits.square().mean() + outputs.features["layer3"].mean()).backward()
    return outputs, network.network.conv1.weight.grad


@pytest.mark.parametrize(
    ("compiled", "widths"),
    [
        (False, (16, 16, 32, 64)),
        (False, (8, 8, 16, 32)),  # whose strided 1x1 convolutions corrupt memory as they are
        pytest.param(True, None, marks=pytest.mark.slow),
    ],
)
def test_outputs_features_gradients_and_names_stay_the_same(compiled, widths):
    plain, changed = (tapped(widths, short=compiled) for _ in range(2))
    set_execution(changed.network, channels_last=True, compiled=compiled)
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert changed.network.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    expected, expected_gradient = outputs_and_gradient(plain)
    got, gradient = outputs_and_gradient(changed)
    products, layers = 9 * 64, 8  # of the widest convolution
    assert_rounded_alike(got.logits, expected.logits, products, layers)
    assert list(got.features) == list(expected.features)
    for tap, feature in expected.features.items():
        assert_rounded_alike(got.features[tap], feature, products, layers)
    if widths == (8, 8, 16, 32):  # its first gradients nearly cancel: rounding is not the size of the largest
        assert gradient.isfinite().all()
        return
    images_and_places = 13 * 32 * 32
    assert_rounded_alike(gradient, expected_gradient, images_and_places, 2 * layers)


@pytest.mark.parametrize(("channels_last", "compiled"), [(True, False), (False, True)])
def test_convolutions_that_corrupt_memory_are_replaced_also_for_a_compiler(channels_last, compiled):
    wide, thin = tapped().network, tapped(widths=(8, 8, 16, 32)).network
    for network in (wide, thin):
        set_layout(network, channels_last=channels_last, compiled=compiled)
    replaced = [name for name, module in thin.named_modules() if isinstance(module, SubsampledConv2d)]
    assert replaced == ["layer2.0.downsample.0"]  # 8 channels; that of layer3 has 16
    assert not any(isinstance(module, SubsampledConv2d) for module in wide.modules())


def test_a_subsampled_convolution_is_the_strided_one():
    strided = nn.Conv2d(8, 4, 1, stride=(2, 3))
    changed = copy.deepcopy(strided)
    set_layout(changed, channels_last=True, compiled=False)
    images = torch.rand(3, 8, 7, 8)
    assert isinstance(changed, SubsampledConv2d)
    assert_rounded_alike(changed(images), strided(images), 8, 1)


@pytest.fixture
def one_of_two():
    """Let this process run as rank 0 of two."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


def test_batch_norm_that_is_not_synchronised_for_a_while_has_a_second_derivative(one_of_two):
    plain, synchronised = tapped(), torch.nn.SyncBatchNorm.convert_sync_batchnorm(tapped())
    images = torch.rand(13, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def second_derivative(network):
        weight = network.network.conv1.weight
        [first] = torch.autograd.grad(network(images).logits.square().mean(), weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight)[0]

    with local_batch_norm(synchronised):
        assert torch.equal(second_derivative(synchronised), second_derivative(plain))
    with pytest.raises(ValueError, match="expected input tensor to be on"):  # synchronised again: not on CPUs
        synchronised(images)
