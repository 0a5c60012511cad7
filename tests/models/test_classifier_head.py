"""Classifiers cut out of whole networks."""

import gc

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.classifier_head import ClassifierHead, in_class_order
from amtml_pl.models.taps import TappedNetwork
from rounding import assert_rounded_alike

pytestmark = pytest.mark.numbers

SMALL = ("resnet8", "vgg8_quarter", "wrn_10_1", "shufflenet_v2")
LARGE = ("resnet18", "densenet121", "mobilenet_v2", "timm_resnet18", "resnet20_published")  # one a family


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_head_gives_from_the_last_map_what_the_whole_network_gives(configure, name):
    node = configure(f"teacher=[{name}]").teacher[name]
    taps = [node.hint, *node.stages]
    network = TappedNetwork(instantiate(node.network), mean=[0.5] * 3, std=[0.2] * 3, taps=taps).eval()
    outputs = network(torch.rand(2, 3, 32, 32))
    head = ClassifierHead(network.network, node.hint)
    assert_rounded_alike(head(outputs.features[node.hint]), outputs.logits, products=4096, layers=3)
    assert not any(parameter.requires_grad for parameter in head.parameters())
    assert sum(p.numel() for p in head.parameters()) < 0.2 * sum(p.numel() for p in network.parameters())


def test_a_class_map_is_applied_and_evaluation_mode_is_kept():
    network = CifarResNet(8, 4, [4, 4, 8, 8]).eval()
    head, plain = ClassifierHead(network, "layer3", (2, 0)), ClassifierHead(network, "layer3")
    feature = torch.rand(3, 8, 8, 8)
    torch.testing.assert_close(head(feature), plain(feature)[:, [2, 0]])
    assert not any(module.training for module in head.train().modules())


def test_the_rest_of_the_network_can_be_freed():
    network = CifarResNet(8, 4, [4, 4, 8, 8])
    head = ClassifierHead(network, "layer3")
    del network
    gc.collect()
    assert sum(p.numel() for p in head.parameters()) == 8 * 4 + 4


class Around(nn.Module):
    """A convolution, and any function of its output and of the images."""

    def __init__(self, function):
        super().__init__()
        self.body, self.function = nn.Conv2d(3, 3, 1), function

    def forward(self, images):
        return self.function(self.body(images), images)


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda feature, images: (feature + images).mean(dim=(2, 3)), "also read earlier modules"),
     (lambda feature, images: feature[0] if feature.sum() > 0 else feature[1], "cannot trace Around")],
)  # fmt: skip
def test_a_network_that_reads_more_than_the_tap_or_cannot_be_traced_is_refused(function, message):
    with pytest.raises(UserError, match=rf"be separated: .*{message}"):
        ClassifierHead(Around(function), "body")


def test_an_operation_in_place_does_not_change_the_given_map():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    feature = torch.randn(2, 4, 5, 5)
    head = ClassifierHead(network, "0")
    assert torch.equal(head(feature), head(feature))


def test_a_class_without_an_output_has_the_logit_minus_infinity():
    found = in_class_order(torch.tensor([[1.0, 2.0, 3.0]]), [2, None, 0])
    assert found.tolist() == [[3.0, -torch.inf, 1.0]]
