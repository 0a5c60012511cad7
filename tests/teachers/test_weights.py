import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.teachers.weights import load_weights, read_state_dict


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential()
        layers.add_module("conv", nn.Conv2d(3, 4, 3))
        layers.add_module("norm", nn.BatchNorm2d(4))
        layers.add_module("fc", nn.Linear(4, 2))
    return layers


def blank():
    empty = network()
    for tensor in empty.state_dict().values():
        tensor.zero_()
    return empty


WEIGHTS = network().state_dict()


def same(found, expected=WEIGHTS):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def prefixed(prefix, weights=WEIGHTS):
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.fixture
def saved(tmp_path: Path):
    def save(content, name="weights.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def test_weights_come_from_safetensors_and_from_torch_files(tmp_path: Path, saved):
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    for path in (tmp_path / "weights.safetensors", saved(WEIGHTS), str(saved(WEIGHTS, "x.pth.tar"))):
        assert same(read_state_dict(path))
        empty = blank()
        load_weights(empty, path)
        assert same(empty.state_dict())


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": WEIGHTS, "epoch": 3}, None),
        ({"model": WEIGHTS, "lr": 0.1, "optimizer": {"momentum": 0.9}}, None),
        ({"ema": WEIGHTS, "model": prefixed("x.")}, "ema"),
        ({"teacher": {"net": WEIGHTS}}, "teacher.net"),
        ({"teacher.net": WEIGHTS}, "teacher.net"),
        ({"a": {"b.c": WEIGHTS}}, "a.b.c"),
        ({"state_dict_ema": WEIGHTS, "epoch": 1}, None),
        ({"model_ema": WEIGHTS, "optimizer": {}}, None),
    ],
)
def test_a_state_dict_is_found_inside_a_checkpoint(saved, content, key):
    assert same(read_state_dict(saved(content), key=key))


def test_prefixes_are_stripped_in_order_and_names_replaced_by_patterns(saved):
    path = saved(prefixed("module.net.", {"layers.0.w": torch.ones(1), "head": torch.zeros(1)}))
    found = read_state_dict(
        path,
        strip_prefixes=["module.", "net."],
        rename={r"^layers\.(\d+)\.": r"block\1.", "w$": "weight", "^head$": "fc"},
    )
    assert list(found) == ["block0.weight", "fc"]


def test_the_count_of_batches_may_be_missing_but_nothing_else(saved):
    few = {name: tensor for name, tensor in WEIGHTS.items() if "num_batches" not in name}
    empty = blank()
    load_weights(empty, saved(few))
    assert same({k: v for k, v in empty.state_dict().items() if k in few}, few)


def test_everything_that_does_not_fit_is_listed_and_nothing_is_loaded(saved):
    wrong = dict(WEIGHTS) | {"fc.weight": torch.ones(7, 4)}
    wrong |= {f"extra{i}": torch.ones(1) for i in range(8)}
    del wrong["conv.bias"], wrong["norm.bias"]
    empty = blank()
    expected = (
        r"does not fit Sequential \(9 tensors\)\. Missing keys: 2 \(conv.bias, norm.bias\)\. "
        r"Unexpected keys: 8 \(extra0, extra1, extra2, extra3, extra4 and 3 more\)\. "
        r"Wrong shapes: 1 \(fc.weight: got \(7, 4\), expected \(2, 4\)\)\."
    )
    with pytest.raises(UserError, match=expected):
        load_weights(empty, saved(wrong))
    assert same(empty.state_dict(), blank().state_dict())


@pytest.mark.parametrize(
    "content",
    [
        prefixed("module."),  # of DataParallel
        {"state_dict": prefixed("net.") | {"criterion.weight": torch.ones(2)}, "epoch": 1},  # of Lightning
        {"model_ema": prefixed("module.") | {"n_averaged": torch.tensor(7)}},  # of torchvision
        prefixed("module.model."),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_the_only_prefix_that_gives_the_whole_network_is_removed(tmp_path, content, form):
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=form == "zip")
    empty = blank()
    load_weights(empty, tmp_path / "w.pt")
    assert same(empty.state_dict())


def test_two_prefixes_that_give_the_whole_network_are_refused(saved):
    both = prefixed("model.") | prefixed("ema.")
    with pytest.raises(UserError, match=r"several networks that fit \(got the prefixes \['model.', 'ema.'\]"):
        load_weights(blank(), saved(both))
    for content, key in ((both, "ema"), ({"state_dict": both}, "state_dict.ema")):
        empty = blank()
        load_weights(empty, saved(content), key=key)
        assert same(empty.state_dict())


def test_a_legacy_file_that_was_saved_on_a_gpu_is_read(tmp_path):
    """As the published checkpoints of 2018; only the names of the storages differ."""
    torch.save(WEIGHTS, tmp_path / "w.th", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.th").read_bytes().replace(b"ctorch\n", b"ctorch.cuda\n")
    (tmp_path / "w.th").write_bytes(content)
    assert b"ctorch.cuda\nFloatStorage" in content
    assert same(read_state_dict(tmp_path / "w.th"))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_whole_module_is_refused_by_its_name(tmp_path, form):
    torch.save(network(), tmp_path / "w.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=r"more than tensors \(torch.nn.modules.container.Sequential\)"):
        read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("prefix", "strip", "hint"),
    [
        ("module.net.", [], r"remove the common prefix of all keys: .*.strip_prefixes=\['module.net.'\]"),
        ("a.b.", ["a."], r"teacher.NAME.weights.strip_prefixes=\['a.', 'b.'\]"),
        ("", [], r"choose the network whose weights the file contains \(docs/teachers"),
    ],
)
def test_a_prefix_that_all_names_share_is_hinted_at(saved, prefix, strip, hint):
    weights = dict(WEIGHTS) | {"extra": torch.ones(1)}
    with pytest.raises(UserError, match=f"(?s)Unexpected keys.*Fix: .*{hint}"):
        load_weights(network(), saved(prefixed(prefix, weights)), strip_prefixes=strip)


class Malicious:
    """A pickle that creates a file when it is opened in the ordinary way."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize("form", ["zip", "legacy", "nested", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_never_run(tmp_path: Path, form):
    path, target = tmp_path / "weights.pt", tmp_path / "was_executed"
    content = Malicious(target)
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        nested = {"state_dict": dict(WEIGHTS), "extra": content} if form == "nested" else content
        torch.save(nested, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(UserError, match=r"would execute code from the file, so nothing was loaded"):
        read_state_dict(path)
    assert not target.exists()


def test_the_object_that_is_more_than_a_tensor_is_named(saved):
    with pytest.raises(UserError, match=r"contains more than tensors \(argparse.Namespace\)"):
        read_state_dict(saved({"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1)}))


def test_missing_damaged_and_other_kinds_of_files_are_refused_by_name(tmp_path: Path, saved):
    save_file(WEIGHTS, tmp_path / "half.safetensors")
    torch.save(WEIGHTS, tmp_path / "half_legacy.pt", _use_new_zipfile_serialization=False)
    paths = [tmp_path / "half.safetensors", tmp_path / "half_legacy.pt", saved(WEIGHTS)]
    for path in paths:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for name in ("page.pt", "page.safetensors", "empty.pt"):
        paths.append(tmp_path / name)
        paths[-1].write_text("" if name == "empty.pt" else "<!DOCTYPE html><html></html>")
    for path in paths:
        with pytest.raises(UserError, match=rf"{path.name} \(\d+ bytes\) cannot be read as network weights"):
            read_state_dict(path)
    with pytest.raises(UserError, match=f"The weights file {tmp_path}/nothing.pt does not exist"):
        read_state_dict(tmp_path / "nothing.pt")


@pytest.mark.parametrize(
    ("content", "arguments", "text"),
    [
        (
            {"state_dict": WEIGHTS, "model": WEIGHTS},
            {},
            r"several state dicts \(got \['state_dict', 'model'\]",
        ),
        ({"student": WEIGHTS}, {}, "values at the top level that are not tensors: student"),
        ({"student": WEIGHTS}, {"key": "teacher"}, r"has no key 'teacher' \(available: student\)"),
        ({"a": {"b": WEIGHTS}}, {"key": "a.c"}, r"has no key 'a.c' \(available: a.b\)"),
        ({"a": torch.ones(1)}, {"key": "a"}, r"no state dict at key 'a' \(got a Tensor, expected a dict"),
        ([torch.ones(1)], {}, r"no state dict at the top level \(got a list"),
        ({}, {}, r"no state dict at the top level \(got an empty dict"),
        (
            WEIGHTS,
            {"strip_prefixes": "module."},
            r"strip_prefixes is a string \(got 'module.', expected a list",
        ),
        (WEIGHTS, {"rename": {"(": ""}}, r"rename contains an invalid .*got '\(': ''"),
        (WEIGHTS, {"rename": {"fc": r"\2"}}, "rename contains an invalid .*invalid group reference"),
        (
            WEIGHTS,
            {"rename": {"^conv.*": "x"}},
            "Two tensors of .* get the same new name 'x' .the second is 'conv",
        ),
    ],
)
def test_a_file_without_a_state_dict_is_refused_with_the_key_to_set(saved, content, arguments, text):
    with pytest.raises(UserError, match=rf"(?s){text}.*Fix: .*teacher\.NAME\.weights\."):
        read_state_dict(saved(content), **arguments)
