"""Configurations are checked before any work, with all mistakes at once."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from amtml_pl.config.checks import check
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError

EXPERIMENTS = sorted(file.stem for file in (config_directory() / "experiment").glob("*.yaml"))
CHOICES = {
    group: sorted(file.stem for file in (config_directory() / group).glob("*.yaml"))
    for group in ("dataset", "weighting", "optimizer", "scheduler", "trainer", "augment")
}
STUDENTS = sorted(file.stem for file in (config_directory() / "student").glob("*.yaml"))
LOSSES = {}  # by the term that they define
for file in sorted((config_directory() / "loss").glob("*.yaml")):
    LOSSES.setdefault(next(iter(OmegaConf.load(file).loss)), []).append(file.stem)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_passes_the_check(configure, experiment):
    check(configure(f"experiment={experiment}"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_states_source_command_and_expectation(experiment):
    header = (config_directory() / "experiment" / f"{experiment}.yaml").read_text().split("defaults:")[0]
    for word in ("# Data:", "# Source:", "# Command:", "# Cost:", "# Expected:"):
        assert word in header
    command = re.search(r"# Command: +python -m amtml_pl\.train (?:-m )?(\S+)", header)
    assert command
    assert command[1] == f"experiment={experiment}"


@pytest.mark.parametrize("place", range(max(map(len, [*CHOICES.values(), *LOSSES.values()]))))
def test_every_choice_of_every_group_passes_the_check(configure, place):
    """The choices of different groups are composed together."""
    chosen, terms = (
        {group: names[place % len(names)] for group, names in groups.items()} for groups in (CHOICES, LOSSES)
    )
    needed = ["++trainer.accelerator=cpu", "++trainer.sync_batchnorm=false"]
    needed.append(f"loss=[{','.join(terms.values())}]")
    if chosen["dataset"] in ("image_folder", "one_folder"):
        needed += ["dataset.source.folder=x", "dataset.num_classes=3"]
    check(configure(*(f"{group}={name}" for group, name in chosen.items()), *needed))


def test_every_network_passes_the_check_as_a_teacher(configure):
    check(configure(f"teacher=[{','.join(STUDENTS)}]", "teacher_recipe=digits_teacher"))


@pytest.mark.parametrize("student", STUDENTS[::5])
def test_a_network_passes_the_check_as_a_student(configure, student):
    check(configure(f"student={student}"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["temperature=0"], r"temperature=0: expected a number above 0"),
        (["student.network.depth=deep"], r"student.network.depth='deep': expected int"),
        (
            ["loss=[ce,kd]", "loss.kd.standardize=true"],
            r"loss.kd.standardize=True: expected none, teachers or mixture$",
        ),
        (["method=srrl", "loss.srrl.hint=3"], r"loss.srrl.hint=3: expected str or null"),
        (["+teacher.resnet56.hint=layer3"], r"teacher.resnet56 has settings, but it is not selected"),
        (["dataset=image_folder"], r"dataset.source.folder cannot be resolved: Missing"),
    ],
)
def test_mistakes_are_named_with_their_key_path(configure, overrides, text):
    with pytest.raises(UserError, match=text):
        check(configure(*overrides))


@pytest.mark.parametrize("size", ["0.0", "1.0", "-0.1", "-1", "100.0", "null"])
def test_a_validation_split_is_a_whole_number_or_a_share_between_0_and_1(configure, size):
    text = r"data.val_size.*: expected a whole number of images, 0 for no validation split, or a fraction"
    with pytest.raises(UserError, match=text):
        check(configure(f"data.val_size={size}"))


@pytest.mark.parametrize("size", ["0", "100", "0.1"])
def test_images_and_shares_of_a_validation_split_pass_the_check(configure, size):
    check(configure("experiment=digits", "method=ce", f"data.val_size={size}"))


def test_a_coefficient_is_typed_for_any_term_and_its_default_is_in_the_terms_file(configure):
    assert configure("loss=[ce,adapter_l2]").coef == {"ce": 1.0, "adapter_l2": 1.0e-4}
    check(configure("loss=[ce]", "coef.kd=2"))
    with pytest.raises(UserError, match=r"coef.kdd: unknown term; did you mean 'kd'\?"):
        check(configure("coef.kdd=2"))


def test_every_yaml_file_is_plain_and_has_a_header():
    for file in Path(config_directory()).rglob("*.yaml"):
        text = file.read_text()
        assert text.startswith("#"), f"{file} does not say what it is"
        yaml.safe_load(text)
        OmegaConf.create(text)
