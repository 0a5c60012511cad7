"""Memory layout and compilation change the speed of a network and nothing else."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.layout import local_batch_norm, set_execution
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


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_outputs_features_gradients_and_names_stay_the_same(compiled):
    plain, changed = (tapped(short=compiled) for _ in range(2))
    set_execution(changed.network, channels_last=True, compiled=compiled, trained_on_cpu=True)
    assert list(changed.state_dict()) == list(plain.state_dict())
    expected, expected_gradient = outputs_and_gradient(plain)
    got, gradient = outputs_and_gradient(changed)
    products, layers = 9 * 64, 8  # of the widest convolution
    assert_rounded_alike(got.logits, expected.logits, products, layers)
    assert list(got.features) == list(expected.features)
    for tap, feature in expected.features.items():
        assert_rounded_alike(got.features[tap], feature, products, layers)
    images_and_places = 13 * 32 * 32
    assert_rounded_alike(gradient, expected_gradient, images_and_places, 2 * layers)


def test_a_layout_that_would_corrupt_memory_is_refused_on_the_cpu_alone():
    thin = tapped(widths=(8, 8, 16, 32)).network
    with pytest.raises(UserError, match=r"too few input channels \(got .*layer2.*at least 16"):
        set_execution(thin, channels_last=True, compiled=False, trained_on_cpu=True)
    set_execution(thin, channels_last=True, compiled=False, trained_on_cpu=False)
    assert thin.conv1.weight.is_contiguous(memory_format=torch.channels_last)


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
