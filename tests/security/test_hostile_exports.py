"""Damaged or malicious exported students are opened or rejected, and none of their code is run."""

import json

import onnx
import pytest
import torch
from canary import flipped, outcome
from hypothesis import given
from hypothesis import strategies as st
from nested import FUZZ
from safetensors.torch import load, save
from watch import nothing_happens

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.export.card import ModelCard
from amtml_pl.results.export.formats import FORMATS, open_exported
from amtml_pl.results.export.student import StudentLogits

ARGUMENTS = {"depth": 8, "num_classes": 3, "widths": [4, 4, 4, 4]}
CARD = ModelCard(
    classes=("cat", "dog", "owl"), image_size=8, input_size=None, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
    network={"_target_": "amtml_pl.models.cifar_resnet.CifarResNet", **ARGUMENTS},
    run="digits/x", experiment="digits", seed=0, checkpoint="best", commit="",
    dataset="digits", data_digest="0", metrics={"val/acc": 0.5},
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a small student in every format."""
    folder = tmp_path_factory.mktemp("exports")
    torch.manual_seed(0)
    student = TappedNetwork(CifarResNet(**ARGUMENTS), mean=CARD.mean, std=CARD.std)
    found = {}
    for name, kind in FORMATS.items():
        file = folder / f"student{kind.suffix}"
        kind.write(StudentLogits(student.requires_grad_(False)), CARD, file)
        found[name] = file.read_bytes()
    return found


@pytest.fixture
def file(hostile):
    """Return a function that writes bytes as a student of a format."""

    def laid(kind, content):
        place = hostile / f"student{FORMATS[kind].suffix}"
        place.write_bytes(content)
        return place

    return laid


NETWORKS = {
    "a command": ({"_target_": "os.system", "command": "touch CANARY"}, "os.system is not an allowed"),
    "code as a name": (
        {"_target_": "amtml_pl.models.small_images.adapt_stem", "skip": ["x'); open('CANARY', 'w') #"],
         "network": {"_target_": "torchvision.models.resnet18", "num_classes": 3}},
        "expected numbers, names",
    ),
    "the environment": ({"_target_": "timm.create_model", "model_name": "${oc.env:HOME}"}, "without"),
}  # fmt: skip


@pytest.mark.parametrize(("network", "reason"), NETWORKS.values(), ids=NETWORKS)
def test_a_card_builds_only_a_listed_network_from_plain_values(whole, file, canary, network, reason):
    metadata = CARD.texts() | {"network": json.dumps(network).replace("CANARY", str(canary))}
    place = file("safetensors", save(load(whole["safetensors"]), metadata=metadata))
    with nothing_happens(), pytest.raises(UserError, match=reason):
        open_exported(place)


def test_onnx_reads_no_other_file(whole, file, hostile):
    (hostile / "other.bin").write_bytes(bytes(4096))
    model = onnx.load_model_from_string(whole["onnx"])
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "other.bin"), ("offset", "0"), ("length", "432")):
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(UserError, match="stores the network weights in other files"):
        open_exported(file("onnx", model.SerializeToString()))


@pytest.mark.parametrize(
    ("key", "text"),
    [("classes", "[" * 100_000), ("image_size", "1000000000"), ("std", "[0, 1, 1]"), ("amtml_pl", "99")],
)
def test_a_card_with_other_values_is_rejected_by_name(whole, file, key, text):
    content = save(load(whole["safetensors"]), metadata=CARD.texts() | {key: text})
    with pytest.raises(UserError, match=key) as found:
        open_exported(file("safetensors", content))
    assert len(str(found.value)) < 1500


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
@FUZZ
@given(bit=st.integers(0, 2**24))
def test_a_flipped_bit_is_a_student_or_a_message(whole, file, kind, bit):
    place = file(kind, flipped(whole[kind], bit))
    found = outcome(lambda: open_exported(place))
    if not isinstance(found, UserError):
        assert len(found.card.classes) >= 2


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_rejected(whole, file, kind, share):
    content = whole[kind][: int(share * len(whole[kind]))]
    with pytest.raises(UserError):
        open_exported(file(kind, content))
