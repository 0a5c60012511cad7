"""Taps read what modules return, and leave the network as it was."""

import copy
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.resize import resize
from amtml_pl.models.taps import NetworkCost, TappedNetwork, cost, find_module, tap_shapes
from amtml_pl.types import ModelOutputs
from rounding import assert_rounded_alike

pytestmark = pytest.mark.numbers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tapped(network, *taps):
    return TappedNetwork(network, mean=MEAN, std=STD, taps=taps)


def small_network():
    """Convolution, batch norm and an in-place ReLU, pooled to ten logits."""
    first = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


class Returning(nn.Module):
    """Run ``inner``, whose output only a tap reads, and return logits."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.unused = nn.Linear(1, 1)
        self.fc = nn.Linear(3, 10)

    def forward(self, images):
        self.inner(images)
        return self.fc(images.mean((2, 3)))


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class TestLogits:
    def test_a_tapped_network_gives_the_logits_of_the_network_itself(self, images):
        network = CifarResNet(8, 10).eval()
        normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        expected = network(normalised)
        assert torch.equal(tapped(network)(images).logits, expected)
        assert torch.equal(tapped(network, "layer1", "bn1", "avgpool")(images).logits, expected)

    @settings(max_examples=20)
    @given(
        mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
        std=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    )
    def test_each_channel_is_normalised_by_its_own_mean_and_deviation(self, mean, std):
        images = torch.rand(2, 3, 4, 4)
        seen = TappedNetwork(Returning(nn.Identity()), mean=mean, std=std, taps=["inner"])(images)
        for channel in range(3):
            expected = (images[:, channel] - torch.tensor(mean[channel])) / torch.tensor(std[channel])
            torch.testing.assert_close(seen.features["inner"][:, channel], expected)

    @pytest.mark.parametrize(
        ("output", "named"), [(lambda x: (x, x), "a tuple"), (lambda x: x, r"shape \(2, 3, 32, 32\)")]
    )
    def test_a_network_without_a_row_of_logits_per_image_is_refused(self, images, output, named):
        with pytest.raises(UserError, match=rf"Calling has a wrong output .got .*{named}.*expected logits"):
            tapped(Calling(output))(images)


class TestInputSize:
    def test_networks_of_other_sizes_see_the_same_images_each_at_its_own_size(self, images):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        for size in (224, 32, 20):
            network = TappedNetwork(
                Returning(nn.Identity()), mean=MEAN, std=STD, taps=["inner"], input_size=size
            )
            seen = network(images).features["inner"]
            assert torch.equal(seen, (resize(images, size) - mean) / std)

    def test_shapes_and_cost_are_those_of_the_network_s_own_size(self):
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        own = TappedNetwork(network, mean=MEAN, std=STD, taps=["0"], input_size=48)
        assert tap_shapes(own, 32) == (4, {"0": (4, 48, 48)})
        assert cost(own, 32).macs == 48 * 48 * 4 * 27

    def test_a_size_that_the_network_refuses_is_named_with_a_fix(self):
        layers = nn.Conv2d(3, 4, 7), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)
        network = TappedNetwork(nn.Sequential(*layers), mean=MEAN, std=STD, input_size=40)
        with pytest.raises(
            UserError,
            match=r"fails on images of 40x40 pixels(.|\n)*set input_size of student or teacher.NAME",
        ):
            tap_shapes(network, 32)


class TestTaps:
    def test_a_map_stays_as_it_is(self, images):
        network = small_network().eval()
        outputs = tapped(network, "0")(images)
        normalised = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        assert torch.equal(outputs.features["0"], network[0](normalised))

    def test_a_vector_becomes_a_map_of_one_pixel(self, images):
        assert tapped(small_network(), "4")(images).features["4"].shape == (2, 8, 1, 1)

    def test_features_come_in_the_order_of_the_taps_and_once_each(self, images):
        features = tapped(small_network(), "3", "0", "3")(images).features
        assert list(features) == ["3", "0"]

    def test_a_relu_that_overwrites_its_input_does_not_overwrite_the_feature(self, images):
        assert tapped(small_network(), "1")(images).features["1"].min() < 0

    def test_a_module_that_runs_twice_gives_its_last_output(self, images):
        relu = nn.ReLU()
        network = nn.Sequential(relu, nn.Conv2d(3, 5, 1), relu, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        assert tapped(network, "0")(images).features["0"].shape == (2, 5, 32, 32)

    def test_a_hint_trains_the_layers_below_its_tap(self, images):
        network = CifarResNet(8, 10)
        tapped(network, "layer2")(images).features["layer2"].square().mean().backward()
        assert network.conv1.weight.grad.abs().sum() > 0
        assert network.fc.weight.grad is None

    def test_two_forwards_of_one_step_keep_their_own_features(self, images):
        network = tapped(CifarResNet(8, 10), "layer1").eval()
        first, second = network(images), network(images.flip(0))
        first, second = first.features["layer1"], second.features["layer1"]
        assert_rounded_alike(first, second.flip(0), products=9 * 16, layers=3)
        assert not torch.equal(first, second)
        (first.mean() + second.mean()).backward()

    def test_blocks_of_a_timm_transformer_can_be_tapped(self):
        timm = pytest.importorskip("timm")
        with torch.device("meta"):
            sizes = {"img_size": 32, "patch_size": 4, "num_classes": 10, "depth": 2}
            vit = timm.create_model("vit_tiny_patch16_224", **sizes)
            model = tapped(vit, "blocks.0", "pos_drop")
        assert tap_shapes(model, 32) == (10, {"blocks.0": (192, 8, 8), "pos_drop": (192, 8, 8)})


class TestRefusedTaps:
    def test_a_wrong_path_is_refused_with_the_closest_and_some_right_ones(self):
        closest = r"^CifarResNet has no module 'network.layer2'\. Similar paths: layer2, layer"
        with pytest.raises(
            UserError, match=closest + r".* Existing paths: conv1, bn1.* and \d+ deeper modules\."
        ):
            tapped(CifarResNet(20, 10), "network.layer2")

    @pytest.mark.parametrize("path", ["", "layer1.", "layer1.7", "conv1.weight"])
    def test_a_path_without_a_submodule_is_refused(self, path):
        offered = r"(?s)has no module.*stages or hint of student or teacher\.NAME"
        with pytest.raises(UserError, match=offered):
            find_module(CifarResNet(8, 10), path)
        with pytest.raises(UserError, match="Existing paths: none"):
            find_module(nn.Identity(), "layer1")

    @pytest.mark.parametrize(
        ("output", "named"),
        [(lambda x: (x, x), "a tuple"), (lambda x: x > 0, "a torch.bool tensor"),
         (lambda x: x[:, :, None], r"a torch.float32 tensor of shape \(2, 3, 1, 32, 32\)")],
    )  # fmt: skip
    def test_an_output_that_is_not_a_map_is_refused_by_tap_and_type(self, images, output, named):
        with pytest.raises(UserError, match=rf"'inner' has a wrong output .got {named}"):
            tapped(Returning(Calling(output)), "inner")(images)

    def test_windows_stacked_along_the_batch_are_refused(self, images):
        network = Returning(Calling(lambda x: x.reshape(8, 3, 16, 16)))
        with pytest.raises(UserError, match=r"got \{'inner': 8\}, expected 2"):
            tapped(network, "inner")(images)

    def test_a_module_that_no_forward_runs_is_refused(self, images):
        with pytest.raises(UserError, match=r"does not call the tapped modules \['unused'\]"):
            tapped(Returning(nn.Identity()), "inner", "unused")(images)

    @pytest.mark.parametrize(
        ("mean", "std", "message"),
        [([0.5], STD, r"got \[0.5\], expected three numbers, one.*\n.*dataset.mean=.* or 'teacher.NAME.m"),
         (MEAN, [0.2, 0.0, 0.2], r"three numbers greater than 0.*\n.*dataset.std=.* or 'teacher.NAME.std="),
         (MEAN, [0.2, float("nan"), 0.2], "three numbers greater than 0")],
    )  # fmt: skip
    def test_unusable_statistics_are_refused(self, mean, std, message):
        with pytest.raises(UserError, match=message):
            TappedNetwork(small_network(), mean=mean, std=std)


class TestLifeOfATappedNetwork:
    def test_a_copy_records_into_itself(self, images):
        original = tapped(small_network(), "1").eval()
        twin = copy.deepcopy(original)
        nn.init.zeros_(twin.network[0].weight)
        nn.init.zeros_(twin.network[0].bias)
        assert torch.count_nonzero(twin(images).features["1"]) == 0
        assert torch.count_nonzero(original(images).features["1"]) > 0

    def test_features_live_no_longer_than_the_outputs(self, images):
        network = tapped(small_network(), "0")
        raw = []
        network.network[0].register_forward_hook(lambda *called: raw.append(weakref.ref(called[2])))
        outputs = network(images)
        feature = weakref.ref(outputs.features["0"])
        assert feature() is not None
        del outputs
        assert feature() is None
        assert raw[0]() is None

    def test_a_failed_forward_and_one_of_the_bare_network_record_nothing(self, images):
        network = tapped(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Linear(5, 5)), "0")
        with pytest.raises(RuntimeError):
            network(images)
        assert network.recorder.recorded is None
        alone = tapped(small_network(), "0")
        alone.network(images)
        assert alone.recorder.recorded is None

    def test_the_state_is_the_network_alone(self, images):
        network = tapped(CifarResNet(8, 10), "layer1").eval()
        state = network.state_dict()
        assert set(state) == {f"network.{key}" for key in network.network.state_dict()}
        other = tapped(CifarResNet(8, 10)).eval()
        other.load_state_dict(state)
        assert torch.equal(other(images).logits, network(images).logits)

    def test_the_statistics_follow_the_network_to_another_dtype(self, images):
        outputs = tapped(small_network(), "0").double()(images.double())
        assert outputs.logits.dtype == outputs.features["0"].dtype == torch.float64


class TestProbes:
    def test_shapes_are_those_of_a_real_forward(self, images):
        network = tapped(CifarResNet(8, 10), "layer1", "layer3", "avgpool", "fc")
        outputs: ModelOutputs = network(images)
        expected = {tap: tuple(feature.shape[1:]) for tap, feature in outputs.features.items()}
        assert tap_shapes(network, 32) == (10, expected)

    def test_probing_changes_nothing(self):
        network = tapped(CifarResNet(8, 10), "layer1").train()
        network.network.layer2.eval()
        modes = [module.training for module in network.modules()]
        state = {key: value.clone() for key, value in network.state_dict().items()}
        tap_shapes(network, 32)
        cost(network, 32)
        assert [module.training for module in network.modules()] == modes
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())

    def test_the_cost_of_a_small_network_is_the_one_counted_manually(self):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 16×16 outputs of 8 channels, each 3·9 products
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # depthwise: 9 products each
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )
        parameters, macs = (8 * 27 + 8) + 16 + 8 * 9 + (80 + 10), 16 * 16 * 8 * 27 + 16 * 16 * 8 * 9 + 80
        assert cost(tapped(network, "2"), 32) == NetworkCost(parameters, macs)

    def test_a_network_too_deep_for_the_image_is_refused_and_keeps_its_training_mode(self):
        network = tapped(nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten(), nn.LazyLinear(10))).train()
        with pytest.raises(UserError, match="Sequential fails on images of 4x4 pixels"):
            tap_shapes(network, 4)
        assert network.network.training
