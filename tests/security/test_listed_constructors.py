"""Every constructor that a ``_target_`` may name constructs an object and does nothing else."""

import inspect
import socket
from contextlib import suppress

import pytest
import timm
import torch
import torchvision
from omegaconf import OmegaConf
from watch import ACTS, CODE, nothing_happens

from amtml_pl.config import allowed_targets as allowed
from amtml_pl.config.allowed_targets import GROUPS, TIMM, TORCHVISION, located, target_nodes
from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory


def test_the_watch_reports_writing_running_and_sending(out):
    for harm in ((out / "x").mkdir, lambda: exec("1"), socket.socket):  # noqa: S102
        with pytest.raises(AssertionError, match=r"mkdir|exec|socket"), nothing_happens(ACTS + CODE):
            harm()


# Per group of conf/: the override of a choice, the place of its node, and True if a run adds arguments to it.
CHOICES = {
    "augment": ("augment={}", "data.augment", False),
    "callbacks": ("callbacks=[{}]", "callbacks", False),
    "data": ("data={}", "data", True),
    "dataset": ("dataset={}", "dataset.source", False),
    "logger": ("logger=[{}]", "logger", True),
    "loop": ("loop={}", "loop", True),
    "loss": ("loss=[{}]", "loss", False),
    "scheduler": ("scheduler={}", "scheduler", True),
    "student": ("student={}", "student.network", False),
    "weighting": ("weighting={}", "weighting", False),
}
FILES = [
    (group, file.stem) for group in GROUPS for file in sorted((config_directory() / group).glob("*.yaml"))
]


def nodes_of(configure, group, name):
    """Return the nodes that a run builds from a file of a group."""
    if group == "student":  # composed at once, as teachers
        names = ",".join(name for group, name in FILES if group == "student")
        return [configure(f"teacher=[{names}]").teacher[name].network]
    override, place, _ = CHOICES[group]
    own = ["dataset.source.folder=photos", "dataset.num_classes=2"] * (name in ("image_folder", "one_folder"))
    node = OmegaConf.select(configure(override.format(name), *own), place)
    return [*node.values()] if group in ("callbacks", "logger", "loss") else [node]


def does_nothing_else(make, *words, **arguments):
    make(*words, **arguments)  # imports what it needs
    with nothing_happens(ACTS + CODE):
        make(*words, **arguments)


def test_the_files_of_the_groups_name_all_of_our_constructors():
    files = [config_directory() / group / f"{name}.yaml" for group, name in FILES]
    found = target_nodes([OmegaConf.to_container(OmegaConf.load(file), resolve=False) for file in files])
    ours = {node["_target_"] for node in found if node["_target_"].startswith("amtml_pl.")}
    assert ours == allowed.own_constructors(*GROUPS)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), FILES)
def test_our_constructors_do_nothing_else(configure, group, name):
    partial = CHOICES[group][2]
    with torch.device("meta"):
        for node in nodes_of(configure, group, name):
            does_nothing_else(build_object, node, partial=partial)


def constructs(name, device="meta", **arguments):
    with torch.device(device), nothing_happens(ACTS + CODE):
        built = located(name)(**arguments)
    assert isinstance(built, torch.nn.Module)


# One network for each module: those of a module differ in numbers.
TORCHVISIONS = {
    torchvision.models.get_model_builder(name).__module__: name
    for name in torchvision.models.list_models(module=torchvision.models)
}


@pytest.mark.parametrize("name", TORCHVISIONS.values())
def test_a_classifier_of_each_torchvision_module_does_nothing_else(name):
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    constructs(f"{TORCHVISION}{name}", "cpu" if "regnet" in name else "meta", weights=None, **arguments)


FAMILIES = {timm.models.model_entrypoint(name).__module__: name for name in timm.list_models()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES.values())
def test_a_network_of_each_timm_family_does_nothing_else(name):
    constructs(TIMM, model_name=name, pretrained=False)


SETTINGS = {
    "lr_lambda": lambda _: 1.0, "step_size": 1, "milestones": [1], "gamma": 0.5, "T_max": 2, "T_0": 2,
    "base_lr": 0.1, "max_lr": 0.2, "total_steps": 4, "start_factor": 0.5, "total_iters": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(allowed.torch_constructors()))
def test_optimisers_and_schedules_do_nothing_else(name):
    constructor = located(name)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.1, momentum=0.5)
    given = SETTINGS | {
        "params": optimizer.param_groups[0]["params"], "optimizer": optimizer,
        "schedulers": [torch.optim.lr_scheduler.ConstantLR(optimizer) for _ in range(2)],
    }  # fmt: skip
    wanted = inspect.signature(constructor).parameters
    required = {k: given[k] for k, p in wanted.items() if p.default is p.empty and k in given}
    if name.endswith("OneCycleLR"):
        required["total_steps"] = 4
    does_nothing_else(constructor, **required)


@pytest.mark.parametrize("name", allowed.LIGHTNING)
def test_the_constructors_of_lightning_do_nothing_else(name, out, configure):
    given = {"save_dir": str(out / "logs"), "logger": False, "monitor": "val/acc", "accelerator": "cpu",
             "devices": 1, "enable_checkpointing": False, "enable_progress_bar": False}  # fmt: skip
    constructor = located(name)
    arguments = {key: given[key] for key in inspect.signature(constructor).parameters if key in given}
    with suppress(ModuleNotFoundError):  # of an optional package
        does_nothing_else(constructor, **arguments)


def test_nothing_else_of_torch_torchvision_and_timm_is_listed():
    for module in (torch, torch.nn, torch.hub, torch.jit, torchvision, torchvision.models, timm, timm.models):
        listed = {name for name in vars(module) if allowed.is_listed(f"{module.__name__}.{name}")}
        builders = set(torchvision.models.list_models(module=torchvision.models))
        assert listed == {timm: {"create_model"}, torchvision.models: builders}.get(module, set())
