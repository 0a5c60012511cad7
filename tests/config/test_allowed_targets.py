"""A ``_target_`` names a listed constructor, or one that the user trusts, and nothing else."""

import re
import sys

import pytest
from omegaconf import OmegaConf

from amtml_pl.config.allowed_targets import located, refuse_foreign_targets, target_nodes
from amtml_pl.config.build import build_object
from amtml_pl.config.checks import check
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError

ALLOWED = (
    "amtml_pl.losses.angle.AngleLoss", "torch.optim.AdamW", "torch.optim.lr_scheduler.OneCycleLR",
    "torchvision.models.resnet18", "timm.create_model", "pytorch_lightning.Trainer",
    "pytorch_lightning.loggers.CSVLogger", "pytorch_lightning.profilers.SimpleProfiler",
)  # fmt: skip
NOT_LISTED = (
    "os.system", "torch.load", "torch.hub.load", "hydra.utils.call", "amtml_pl",
    "amtml_pl.system.files.write_text", "amtml_pl.data.augment.np.load",
    "amtml_pl.system.download.download", "amtml_pl.losses.angle.angle_loss",
    "amtml_pl.losses.nothing.Loss", "torch.nn.Linear",
    "torch.optim.Optimizer", "torch.optim.swa_utils.AveragedModel", "torch.optim.lr_scheduler.LRScheduler",
    "timm.models.load_checkpoint", "timm.create_model.x", "torchvision.models.ResNet",
    "torchvision.models.get_model", "torchvision.models.detection.fasterrcnn_resnet50_fpn",
    "pytorch_lightning.Trainer.fit", "pytorch_lightning.plugins.io.TorchCheckpointIO",
)  # fmt: skip
NO_NAMES = ("amtml_pl..losses", "torch.optim.SGD; import os", "")
MARK = "the package was imported"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a foreign package that creates a file when it is imported."""
    (tmp_path / "strangers").mkdir()
    (tmp_path / "strangers" / "__init__.py").write_text(
        f"from pathlib import Path\nfrom os import system\nimport json\n"
        f"Path({str(tmp_path / 'imported')!r}).write_text({MARK!r})\n"
        "class Net:\n    def __init__(self, width=1):\n        self.width = width\n"
        "    @classmethod\n    def narrow(cls):\n        return cls(0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "imported"
    sys.modules.pop("strangers", None)


@pytest.mark.parametrize("name", ALLOWED)
def test_parts_of_a_run_may_be_named(name):
    assert located(name).__name__ == name.rpartition(".")[2]


@pytest.mark.parametrize("name", NOT_LISTED)
def test_everything_else_is_refused(name):
    with pytest.raises(UserError, match=f"^{re.escape(name)} is not an allowed constructor"):
        located(name)


@pytest.mark.parametrize("name", [*NO_NAMES, 3, None, ["torch.optim.SGD"], {"_target_": "torch.optim.SGD"}])
def test_a_target_that_is_not_a_dotted_name_is_refused(name):
    with pytest.raises(UserError, match="not a dotted name"):
        located(name)


def test_every_target_of_our_own_yaml_may_be_named():
    files = [file for file in config_directory().rglob("*.yaml") if "hydra" not in file.parts]  # its plugins
    tree = [OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files]
    names = {str(node["_target_"]) for node in target_nodes(tree)}
    names.remove("amtml_pl.training.sweep.jobs.SweepCallback")
    assert len(names) > 50
    for name in names:
        located(name)


def test_a_name_close_to_a_listed_one_is_suggested():
    with pytest.raises(UserError, match=r"did you mean 'amtml_pl.losses.angle.AngleLoss'"):
        located("amtml_pl.losses.angle.AngelLoss")
    with pytest.raises(UserError, match=r"did you mean 'torchvision.models.mobilenet_v3_small'"):
        located("torchvision.models.mobilenetv3_small")
    with pytest.raises(UserError, match=r"is not an allowed constructor \(docs/security.md lists"):
        located("torchvision.models.xyz")


def test_a_package_that_is_not_listed_is_not_even_imported(package):
    with pytest.raises(
        UserError, match=r"(?s)strangers.Net is not an allowed constructor.*AMTML_TARGETS=strangers.Net$"
    ):
        located("strangers.Net")
    assert not package.exists()


def test_the_environment_adds_exact_names(package, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", " other.Loss, strangers.Net,")
    assert located("strangers.Net")().width == 1
    assert package.read_text() == MARK
    for name in ("strangers.Net.narrow", "strangers.system", "strangers.json.loads"):
        with pytest.raises(UserError, match=f"{name} is not an allowed constructor"):
            located(name)
    monkeypatch.setenv("AMTML_TARGETS", "strangers.Net.narrow,strangers.Gone,strangers.json")
    assert located("strangers.Net.narrow")().width == 0
    with pytest.raises(UserError, match=r"strangers.Gone cannot be imported"):
        located("strangers.Gone")
    with pytest.raises(
        UserError, match=r"strangers.json is not callable .got a module, expected a class or a function"
    ):
        located("strangers.json")


@pytest.mark.parametrize("names", ["my package", "mypackage"])
def test_a_variable_with_other_than_dotted_names_is_rejected(monkeypatch, names):
    monkeypatch.setenv("AMTML_TARGETS", names)
    with pytest.raises(
        UserError,
        match=rf"(?s)AMTML_TARGETS has the wrong name {names!r}.*export AMTML_TARGETS=mypackage.MyNe",
    ):
        located("torch.optim.SGD")


TORCHVISION = {"_target_": "torchvision.models.resnet18", "weights": None, "num_classes": 10}
TIMM = {"_target_": "timm.create_model", "model_name": "resnet18", "num_classes": 10}
STEM = {"_target_": "amtml_pl.models.small_images.adapt_stem", "network": TORCHVISION, "skip": ["maxpool"]}


@pytest.mark.parametrize(
    "node", [TORCHVISION, TIMM, STEM, {**STEM, "network": TIMM}, {**TIMM, "act_layer": "gelu"}]
)
def test_a_network_takes_numbers_names_and_lists_of_these(node):
    refuse_foreign_targets(node)


HARMFUL_ARGUMENTS = {
    "code as a name": ({**STEM, "skip": ["x): import os\nos.system('true')"]}, "skip="),
    "a path": ({**TIMM, "act_layer": "../../x"}, "act_layer="),
    "an interpolation": ({**TIMM, "act_layer": "${oc.env:HOME}"}, "act_layer="),
    "a network as a layer": ({**TORCHVISION, "norm_layer": TORCHVISION}, "norm_layer="),
    "a loss as a network": ({**STEM, "network": {"_target_": "amtml_pl.losses.angle.AngleLoss"}}, "network="),
    "weights from a file": (
        {**TIMM, "checkpoint_path": "x.pth"},
        "'checkpoint_path' of timm.create_model is not allowed; load",
    ),
    "weights from a server": (
        {**TIMM, "pretrained_cfg": {"url": "x"}},
        "'pretrained_cfg' of timm.create_model is not allowed; load",
    ),
    "weights from a hub": ({**TIMM, "model_name": "hf-hub:x/y"}, "model_name="),
    "no listed model": (
        {**TIMM, "model_name": "resnet18_x"},
        "model_name='resnet18_x'; similar names: resnet18, .*timm.list_models",
    ),
    "arguments by position": (
        {**TORCHVISION, "_args_": ["x"]},
        "the argument '_args_' of torchvision.models.resnet18 is not allowed",
    ),
}


@pytest.mark.parametrize(("node", "reason"), HARMFUL_ARGUMENTS.values(), ids=HARMFUL_ARGUMENTS)
def test_a_network_takes_nothing_else(node, reason):
    with pytest.raises(UserError, match=reason):
        refuse_foreign_targets(node)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["student.network._target_=os.system"], "student.network._target_=os.system"),
        (["+loss.ce.again={_target_: os.system, command: x}"], "loss.ce.again._target_=os.system"),
        (["+student.network.deep=[{a: {_target_: os.system}}]"], r"deep\[0\].a._target_=os.system"),
        (["teacher=[resnet8]", "teacher.resnet8.pretrained=true",
          "teacher.resnet8.network._target_=os.system"], "teacher.resnet8.network._target_=os.system"),
    ],
)  # fmt: skip
def test_the_check_names_the_key_path_of_what_may_not_be_named(configure, overrides, key):
    with pytest.raises(
        UserError,
        match=rf"{key}: os.system is not an allowed constructor.*to fix it: use an allowed constructor",
    ):
        check(configure("experiment=digits", "method=ce", *overrides))


def test_a_name_that_may_not_be_named_is_never_built(tmp_path):
    canary = tmp_path / "canary"
    harm = {"_target_": "os.system", "command": f"touch {canary}"}
    for node in (harm, {"_target_": "torch.optim.SGD", "lr": harm},
                 {"_target_": "torch.optim.lr_scheduler.SequentialLR", "schedulers": [[harm]]}):  # fmt: skip
        with pytest.raises(UserError, match=r"_target_=os.system: os.system is not an allowed constructor"):
            build_object(OmegaConf.create(node))
    assert not canary.exists()


def test_an_interpolation_does_not_hide_a_name():
    config = OmegaConf.create({"name": "os.system", "student": {"_target_": "${name}", "command": "true"}})
    with pytest.raises(UserError, match=r"_target_=os.system: os.system is not an allowed constructor"):
        build_object(config.student)
