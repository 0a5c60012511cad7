"""The stem adapter changes the named modules, and nothing else."""

import pytest
import torch
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.small_images import adapt_stem


def network():
    """A stem made for large images before a 3×3 convolution that downsamples."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def test_a_7x7_stem_becomes_a_3x3_one_with_new_weights():
    adapted = adapt_stem(network(), kernel_3x3=["0"])
    assert adapted[0].weight.shape == (8, 3, 3, 3)
    assert adapted[0].bias is None
    assert adapted[0](torch.rand(1, 3, 32, 32)).shape == (1, 8, 32, 32)
    assert adapted[0].weight.requires_grad


def test_a_3x3_convolution_keeps_its_weights_and_groups_either_way():
    for argument in ("kernel_3x3", "stride_one"):
        original = network()
        weight = original[2].weight.detach().clone()
        adapted = adapt_stem(original, **{argument: ["2"]})
        assert torch.equal(adapted[2].weight, weight)
        assert adapted[2](torch.rand(1, 8, 16, 16)).shape == (1, 8, 16, 16)


def test_a_skipped_module_becomes_the_identity():
    adapted = adapt_stem(network(), skip=["1"])
    assert isinstance(adapted[1], nn.Identity)
    assert adapted(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_network_with_a_new_stem_keeps_all_other_weights():
    original, adapted = network(), network()
    adapted.load_state_dict(original.state_dict())
    state = adapt_stem(adapted, stride_one=["2"], skip=["1"]).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in original.state_dict().items())


NO_MODULE = r"no module '10'\. Similar paths: 1, 0\. Existing paths: 0, 1, 2, 3, 4, 5\."
NO_CONVOLUTION = r"The module '1' .*got MaxPool2d, expected Conv2d\)\. Existing paths: 0, 2\."


@pytest.mark.parametrize(
    ("argument", "path", "message"),
    [("stride_one", "10", NO_MODULE), ("skip", "10", NO_MODULE), ("stride_one", "1", NO_CONVOLUTION),
     ("kernel_3x3", "1", NO_CONVOLUTION)],
)  # fmt: skip
def test_a_wrong_path_and_no_convolution_are_refused_with_the_right_ones(argument, path, message):
    with pytest.raises(UserError, match=message):
        adapt_stem(network(), **{argument: [path]})


def test_the_network_for_large_images_stays_as_it_is():
    for size, stride in ((None, (1, 1)), (32, (1, 1)), (64, (1, 1)), (65, (2, 2)), (224, (2, 2))):
        adapted = adapt_stem(network(), image_size=size, stride_one=["0"], skip=["1"])
        assert adapted[0].stride == stride
        assert isinstance(adapted[1], nn.Identity) is (stride == (1, 1))
