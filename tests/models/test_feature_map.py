"""Tokens and maps with channels last become maps, as timm's own forward_intermediates gives them."""

import pytest
import torch
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.feature_map import MapReading, as_map
from amtml_pl.models.taps import TappedNetwork

timm = pytest.importorskip("timm")
SIZE = {"img_size": 32, "num_classes": 5}
VIT = {"vit_tiny_patch16_224": {**SIZE, "patch_size": 4, "depth": 2}}
DISTILLED = {"deit_tiny_distilled_patch16_224": {**SIZE, "patch_size": 4, "depth": 2}}
REGISTERS = {
    "vit_medium_patch16_reg4_gap_256": {**SIZE, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
}
SWIN = {"swin_tiny_patch4_window7_224": {**SIZE, "embed_dim": 24, "depths": (1, 1, 1, 1), "window_size": 4}}
CONVNEXT = {"convnext_atto": {"num_classes": 5}}
MAMBA = {"mambaout_femto": {"num_classes": 5}}


def network(named):
    """Build one of these networks with random weights."""
    torch.manual_seed(0)
    [(name, arguments)] = named.items()
    return timm.create_model(name, **arguments).eval()


def read(model, tap, **reading):
    """Return the map of a tap for two images, which are not normalised."""
    tapped = TappedNetwork(model, mean=[0] * 3, std=[1] * 3, taps=[tap], reading=MapReading(**reading))
    with torch.no_grad():
        return tapped(images()).features[tap]


def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("named", "tap", "number"),
    [(VIT, "blocks.0", 0), (VIT, "blocks.1", 1), (DISTILLED, "blocks.1", 1), (REGISTERS, "blocks.1", 1),
     (SWIN, "layers.1", 1), (SWIN, "layers.3", 3), (MAMBA, "stages.2", 2), (CONVNEXT, "stages.1", 1)],
)  # fmt: skip
def test_a_map_is_the_one_of_timms_forward_intermediates(named, tap, number):
    model = network(named)
    with torch.no_grad():
        maps = model.forward_intermediates(images(), norm=False, intermediates_only=True)
    assert torch.equal(read(model, tap), maps[number])


@pytest.mark.parametrize(("named", "prefix"), [(VIT, 1), (DISTILLED, 2)])
def test_the_class_token_and_the_mean_patch_are_maps_of_one_pixel(named, prefix):
    model, seen = network(named), []
    handle = model.blocks[1].register_forward_hook(lambda *called: seen.append(called[2]))
    with torch.no_grad():
        model(images())
    handle.remove()
    assert torch.equal(read(model, "blocks.1", tokens="class"), seen[0][:, 0, :, None, None])
    mean = seen[0][:, prefix:].mean(dim=1)[..., None, None]
    assert torch.equal(read(model, "blocks.1", tokens="mean"), mean)


def test_maps_and_vectors_do_not_depend_on_the_kind_of_token():
    swin = network(SWIN)
    assert torch.equal(read(swin, "layers.2", tokens="mean"), read(swin, "layers.2"))
    assert read(network(VIT), "head", tokens="class").shape == (2, 5, 1, 1)


def test_a_convolution_inside_a_network_with_channels_last_has_them_first():
    swin = network(SWIN)
    assert torch.equal(read(swin, "patch_embed.proj"), swin.patch_embed.proj(images()))


class TestWithoutTimm:
    """The YAML says what a network does not."""

    tokens = torch.arange(2 * 6 * 3).reshape(2, 6, 3).float()

    @pytest.mark.parametrize("kind", ["patches", "class", "mean"])
    def test_the_prefix_is_as_many_tokens_as_the_yaml_says(self, kind):
        own = MapReading(tokens=kind, prefix_tokens=2).of_module(nn.Identity(), nn.Identity())
        expected = {
            "patches": self.tokens[:, 2:].transpose(1, 2).reshape(2, 3, 2, 2),
            "class": self.tokens[:, 0, :, None, None],
            "mean": self.tokens[:, 2:].mean(1)[..., None, None],
        }[kind]
        assert torch.equal(as_map("block", self.tokens, own), expected)

    def test_the_map_format_is_what_the_yaml_says(self):
        maps = torch.rand(2, 4, 5, 3)
        own = MapReading(map_format="NHWC").of_module(nn.Identity(), nn.Identity())
        assert torch.equal(as_map("block", maps, own), maps.permute(0, 3, 1, 2))
        swin = network(SWIN)
        assert read(swin, "layers.0", map_format="NCHW").shape == (2, 8, 8, 24)

    @pytest.mark.parametrize(
        ("prefix", "named"), [(None, "0 prefix"), (1, "1 prefix"), (6, "6 prefix"), (9, "9 prefix")]
    )
    def test_tokens_that_are_no_square_are_refused(self, prefix, named):
        own = MapReading(prefix_tokens=prefix).of_module(nn.Identity(), nn.Identity())
        with pytest.raises(
            UserError, match=rf"'block' are no square grid \(got 6 tokens with {named}.*\n.*prefix_tokens"
        ):
            as_map("block", self.tokens, own)

    def test_no_patches_have_no_mean(self):
        own = MapReading(tokens="mean", prefix_tokens=6).of_module(nn.Identity(), nn.Identity())
        with pytest.raises(UserError, match="no square grid"):
            as_map("block", self.tokens, own)


@pytest.mark.parametrize("named", [REGISTERS, CONVNEXT])
def test_a_class_token_that_a_network_lacks_is_refused(named):
    model = network(named)
    with pytest.raises(UserError, match=r"has no class token .*\n.*tokens=mean"):
        TappedNetwork(model, mean=[0] * 3, std=[1] * 3, taps=["head"], reading=MapReading(tokens="class"))
