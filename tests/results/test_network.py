"""A network is rebuilt without its pretrained weights."""

import pytest

from amtml_pl.errors import UserError
from amtml_pl.results.network import build_untrained, without_pretrained_weights

SHUFFLENET = "torchvision.models.shufflenet_v2_x1_0"
TORCHVISION = {"_target_": SHUFFLENET, "weights": "IMAGENET1K_V1", "num_classes": 4}
TIMM = {"_target_": "timm.create_model", "model_name": "resnet18", "pretrained": True}


def test_pretrained_weights_are_removed_at_any_depth_and_nothing_else():
    adapt = "amtml_pl.models.small_images.adapt_stem"
    node = {"_target_": adapt, "network": TORCHVISION, "skip": ["maxpool"]}
    assert without_pretrained_weights(node) == {**node, "network": {**TORCHVISION, "weights": None}}
    assert without_pretrained_weights([TIMM]) == [{**TIMM, "pretrained": False}]


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "my.Network", "weights": [1, 2]},
        {"pretrained": True, "weights": "of no network"},
        {"_target_": "torchvision.models.resnet18", "num_classes": 4},
    ],
)
def test_arguments_that_mean_something_else_stay(node):
    assert without_pretrained_weights(node) == node


def test_a_network_with_a_pretrained_constructor_is_built_without_a_network_connection():
    """Its weights would be downloaded, which tests cannot."""
    network = build_untrained(TORCHVISION)
    assert network.fc.out_features == 4


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({"^target_": "torch.nn.Flatten"}, "network has no _target_"),
        ({"_target_": "amtml_pl.losses.ce.CrossEntropy"}, "is not an allowed constructor here"),
        (
            {**TORCHVISION, "weights_backbone": {"_target_": "os.getcwd"}},
            "=os.getcwd is not an allowed constructor",
        ),
        ({"_target_": "amtml_pl.models.cifar_resnet.CifarResNet", "depth": "deep"}, "depth='deep'"),
    ],
)
def test_anything_but_a_listed_network_with_fitting_arguments_is_refused(node, reason):
    with pytest.raises(UserError, match=reason):
        build_untrained(node)
