"""Every file of conf/teacher for a data set names a published checkpoint that its network loads."""

import re

import pytest
import torch
import yaml
from torchvision.models import vgg13_bn

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.models.vgg import FullVgg
from amtml_pl.teachers.weights import load_weights

FOLDER = config_directory() / "teacher"
NAMES = sorted(path.stem for path in FOLDER.glob("cifar*.yaml"))
PAGE = config_directory().parent / "docs" / "published_teachers.md"


@pytest.fixture
def teacher(configure):
    """Return the configuration of a teacher; all of them are composed at once."""

    def made(name):
        data = f"dataset={'cifar100' if 'cifar100' in name else 'cifar10'}"
        names = [other for other in NAMES if other.split("_")[0] == name.split("_")[0]]
        return configure(data, f"teacher=[{','.join(names)}]").teacher[name]

    return made


def published_layout(name, state):
    """Return weights with the keys of the repository that published them."""
    if name.endswith("akamaster"):
        renamed = {f"module.{key.replace('fc.', 'linear.')}": tensor for key, tensor in state.items()}
        return {"state_dict": renamed, "best_prec1": 91.7}
    if not name.endswith("repdistiller"):
        return state
    for number in range(1, 6):
        old = f"block{number - 1}." if "vgg" in name else f"block{number}.layer."
        new = f"stage{number}." if "vgg" in name else f"layer{number}."
        if "resnet" not in name:
            state = {re.sub(f"^{new}", old, key): tensor for key, tensor in state.items()}
    if "vgg" in name:
        state = {key.replace("fc.", "classifier."): tensor for key, tensor in state.items()}
    state = {key.replace(".shortcut.", ".convShortcut."): tensor for key, tensor in state.items()}
    return {"epoch": 240, "model": state, "accuracy": torch.tensor(72.34), "optimizer": {"state": {}}}


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_file_states_its_accuracy_source_and_checksum(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    node = yaml.safe_load(text)[name]
    stated = float(re.search(r"([\d.]+) % of\s(?:# )?the test\W", text)[1])
    assert 0 <= stated / 100 - node["min_accuracy"] < 0.01
    assert re.search(r"# Sources?: https://github.com/", text)
    weights = node["weights"]
    assert weights["url"].startswith("https://github.com/")
    if "member" not in weights:
        assert weights["url"].rpartition("-")[2].startswith(weights["sha256"])
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert f"{stated:.2f} %" in row


@pytest.mark.parametrize(
    "name",
    ["cifar100_resnet20", "cifar10_vgg11_bn", "cifar100_mobilenetv2_x1_0", "cifar10_shufflenetv2_x1_0",
     "cifar10_resnet20_akamaster", "cifar100_resnet56_repdistiller", "cifar100_wrn_40_2_repdistiller",
     "cifar100_vgg13_repdistiller"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_in_the_published_layout_loads(teacher, tmp_path, name, form):
    node = teacher(name)
    network = build_object(node.network)
    expected = {key: torch.rand(t.shape) for key, t in network.state_dict().items() if t.is_floating_point()}
    legacy = form == "legacy"
    torch.save(
        published_layout(name, expected), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy
    )
    how = {key: node.weights[key] for key in ("key", "strip_prefixes", "rename")}
    load_weights(network, tmp_path / "w.pth", **how)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_file_composes_and_its_network_has_the_classes_of_the_data(teacher, name):
    with torch.device("meta"):
        network = build_object(teacher(name).network).eval()
        logits = network(torch.empty(2, 3, 32, 32))
    assert logits.shape == (2, 100 if "cifar100" in name else 10)


def test_the_features_of_the_full_vgg_have_the_names_and_shapes_of_torchvision():
    with torch.device("meta"):
        own, theirs = FullVgg(13, 10).features.state_dict(), vgg13_bn().features.state_dict()
    assert {k: t.shape for k, t in own.items()} == {k: t.shape for k, t in theirs.items()}
