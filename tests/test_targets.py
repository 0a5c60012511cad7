"""A ``_target_`` names a part of a run, or a package that the user has said to trust, and nothing else."""

import re
import sys

import pytest
from omegaconf import OmegaConf

from amtml_pl import assemble
from amtml_pl.config import check
from amtml_pl.config_files import config_directory
from amtml_pl.errors import UserError
from amtml_pl.targets import located, targets_in

ALLOWED = (
    "amtml_pl.losses.angle.AngleLoss", "torch.nn.Linear", "torch.optim.AdamW",
    "torch.optim.lr_scheduler.OneCycleLR", "torchvision.models.resnet18", "timm.create_model",
    "timm.models.resnet18", "pytorch_lightning.Trainer", "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.plugins.io.TorchCheckpointIO", "pytorch_lightning.strategies.DDPStrategy",
    "pytorch_lightning.profilers.SimpleProfiler",
)  # fmt: skip
REFUSED = {
    "os.system": "may not be named",
    "builtins.eval": "may not be named",
    "subprocess.Popen": "may not be named",
    "torch.load": "may not be named",
    "torch.hub.load": "may not be named",
    "hydra.utils.call": "may not be named",
    "amtml_pl": "may not be named",
    "amtml_pl.runs.write_text": "may not be named",
    "torch.nnn.Linear": "may not be named",
    "amtml_pl.augment.np.load": "is the module numpy",
    "amtml_pl.augment.torch.hub.load": "is the module torch",
    "amtml_pl.datasets.download.shutil.rmtree": "is the module shutil",
    "amtml_pl.losses.angle.F.relu": "is the module torch.nn.functional",
    "amtml_pl.datasets.download.Path": "is pathlib",
    "torch.nn": "is a module",
    "torch.nn.functional.relu": "expected a class",
    "torch.nn.Module.load_state_dict": "expected a class",
    "timm.models.load_state_dict": "is timm.models._helpers.load_state_dict",
    "timm.models.load_checkpoint": "is timm.models._helpers.load_checkpoint",
    "torchvision.models.ResNet.forward": "which a _target_ may not name",
    "pytorch_lightning.Trainer.fit": "expected a class",
    "pytorch_lightning.plugins.io.TorchCheckpointIO.load_checkpoint": "expected a class",
    "pytorch_lightning.LightningModule.load_from_checkpoint": "may not be named",
    "amtml_pl.losses.nothing.Loss": "cannot be imported",
    "amtml_pl.losses.angle.Nothing": "cannot be imported",
    "amtml_pl..losses": "expected a dotted name",
    "torch.nn.Linear; import os": "expected a dotted name",
    "": "expected a dotted name",
}
MARK = "the package was imported"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody else's, which leaves a file behind when it is imported."""
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


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_everything_else_is_refused(name, reason):
    with pytest.raises(UserError, match=re.escape(reason)):
        located(name)


@pytest.mark.parametrize("name", [3, None, ["torch.nn.Linear"], {"_target_": "torch.nn.Linear"}])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UserError, match="expected a dotted name"):
        located(name)


def test_every_target_of_our_own_yaml_may_be_named():
    files = [file for file in config_directory().rglob("*.yaml") if "hydra" not in file.parts]  # its plugins
    tree = [OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files]
    names = {str(name) for name in targets_in(tree)} - {"amtml_pl.sweep.Bookkeeping"}  # hydra.callbacks
    assert len(names) > 50
    for name in names:
        located(name)


def test_a_package_that_nobody_trusts_is_not_even_imported(package):
    with pytest.raises(UserError, match=r"(?s)strangers.Net may not be named.*AMTML_TARGETS=strangers$"):
        located("strangers.Net")
    assert not package.exists()


def test_a_package_that_the_environment_names_may_be_used(package, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", " other , strangers,")
    assert located("strangers.Net")().width == 1
    assert located("strangers.Net.narrow")().width == 0
    assert package.read_text() == MARK


@pytest.mark.parametrize("name", ["strangers.system", "strangers.json.loads"])
def test_a_trusted_package_does_not_pass_on_what_it_imports(package, monkeypatch, name):
    monkeypatch.setenv("AMTML_TARGETS", "strangers")
    with pytest.raises(UserError, match=r"which a _target_ may not name|is the module json"):
        located(name)


def test_a_variable_that_holds_no_names_is_refused(monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "my package")
    with pytest.raises(
        UserError, match=r"(?s)AMTML_TARGETS names 'my package'.*export AMTML_TARGETS=mypackage"
    ):
        located("torch.nn.Linear")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["student._target_=os.system"], "student._target_=os.system"),
        (["+loss.ce.again={_target_: os.system, command: x}"], "loss.ce.again._target_=os.system"),
        (["+student.deep=[{a: {_target_: os.system}}]"], r"student.deep\[0\].a._target_=os.system"),
        (["teacher=[resnet8]", "teacher.resnet8.pretrained=true",
          "teacher.resnet8.network._target_=os.system"], "teacher.resnet8.network._target_=os.system"),
    ],
)  # fmt: skip
def test_the_check_names_the_key_path_of_what_may_not_be_named(configure, overrides, key):
    with pytest.raises(
        UserError, match=rf"{key}: os.system may not be named.*to fix it: name a part of a run"
    ):
        check(configure("experiment=digits_ce", *overrides))


def test_nothing_is_built_that_may_not_be_named_whatever_was_checked(tmp_path):
    canary = tmp_path / "canary"
    harm = {"_target_": "os.system", "command": f"touch {canary}"}
    for node in (harm, {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": harm},
                 {"_target_": "torch.nn.Sequential", "_args_": [[harm]]}):  # fmt: skip
        with pytest.raises(UserError, match=r"_target_=os.system: os.system may not be named"):
            assemble.build(OmegaConf.create(node))
    assert not canary.exists()


def test_an_interpolation_does_not_hide_a_name():
    config = OmegaConf.create({"name": "os.system", "student": {"_target_": "${name}", "command": "true"}})
    with pytest.raises(UserError, match=r"_target_=os.system: os.system may not be named"):
        assemble.build(config.student)
