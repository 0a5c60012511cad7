"""Configurations are checked before any work; a run's folder is named by what determines its result."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from amtml_pl.config.checks import check
from amtml_pl.config.command_keys import COMMANDS, help_of
from amtml_pl.config.key import leaves
from amtml_pl.config.key_roles import handed_to_recipes
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import KEYS
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_folder, run_hash, run_label

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
    if chosen["dataset"] == "image_folder":
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
        (["+teacher.resnet56.hint=layer3"], r"teacher.resnet56 has settings but is not selected"),
        (["dataset=image_folder"], r"dataset.source.folder|dataset.num_classes"),
    ],
)
def test_mistakes_are_named_with_their_key_path(configure, overrides, text):
    with pytest.raises(UserError, match=text):
        check(configure(*overrides))


def test_the_hash_depends_on_the_order_of_teachers_and_terms_but_not_on_1_0(configure):
    def hashes(*overrides):
        return len({run_hash(configure("experiment=digits_amtml", of)) for of in overrides})

    # The order of the teachers is that of the hint groups; each term draws parameters after the other.
    assert hashes("teacher=[vgg8_quarter,resnet8,wrn_10_1]", "teacher=[resnet8,vgg8_quarter,wrn_10_1]") == 2
    assert hashes("loss=[ce,hint,regression]", "loss=[ce,regression,hint]") == 2
    assert hashes("coef.kd=1.0", "coef.kd=1") == 1


def test_a_folder_is_found_again_under_any_label(configure):
    config = configure("experiment=digits", "method=ce", "seed=3")
    first = run_folder(config, "digits", "seed-3")
    assert first.name.startswith("seed-3-")
    first.mkdir(parents=True)
    assert run_folder(config, "digits", "another") == first


def test_labels_are_the_overrides_that_can_change_a_result():
    typed = ["experiment=x", "temperature=2", "loss=[ce,kd]", "paths.data=/x", "force=true", "+a.b=1"]
    assert run_label(typed) == "temperature-2_loss-ce-kd_a.b-1"
    assert run_label(["experiment=digits_amtml"]) == "default"


def test_only_the_data_of_the_run_reaches_a_teachers_recipe(configure):
    overrides = (
        "seed=7", "trainer.max_epochs=99", "coef.ce=9", "loss=[ce,kd]", "optimizer.lr=7", "temperature=9",
        "data.batch_size=7", "data.views=3", "scheduler=multistep", "student=resnet20", "weighting=uniform",
    )  # fmt: skip
    plain = recipe(configure("experiment=digits_amtml"), "resnet8")
    changed = recipe(configure("experiment=digits_amtml", *overrides), "resnet8")
    assert run_hash(changed) == run_hash(plain)


def test_the_data_of_the_run_reaches_a_teachers_recipe(configure):
    run = configure("experiment=digits_amtml", "data.seed=4", "data.train_size=200", "data.val_size=50")
    own = recipe(run, "resnet8")
    assert (own.data.seed, own.data.train_size, own.data.val_size) == (4, 200, 50)
    assert own.student.network == run.teacher.resnet8.network
    assert own.role == "teacher"


def test_a_recipe_is_the_configuration_of_its_command(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.seed=2")
    typed = configure("experiment=digits_teacher", "student=resnet8", "seed=2")
    assert run_hash(recipe(run, "resnet8")) == run_hash(typed)


def test_overrides_of_a_single_teachers_recipe_are_its_own(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.recipe_overrides=['optimizer.lr=0.3']")
    assert recipe(run, "resnet8").optimizer.lr == 0.3
    assert recipe(run, "wrn_10_1").optimizer.lr == 0.05


def test_a_teacher_without_weights_and_recipe_is_reported_with_a_fix(configure):
    message = r"neither weights nor a recipe(.|\n)*teacher.resnet8.weights.path=FILE"
    with pytest.raises(UserError, match=message):
        recipe(configure("teacher=[resnet8]"), "resnet8")
    with pytest.raises(UserError, match="cannot be composed"):
        recipe(configure("teacher=[resnet8]", "teacher_recipe=nothing"), "resnet8")


def test_every_yaml_file_is_plain_and_has_a_header():
    for file in Path(config_directory()).rglob("*.yaml"):
        text = file.read_text()
        assert text.startswith("#"), f"{file} does not say what it is"
        yaml.safe_load(text)
        OmegaConf.create(text)


def test_gradients_cannot_be_clipped_where_a_method_steps_its_optimisers_itself(configure):
    check(configure("experiment=digits_amtml", "trainer.gradient_clip_val=1.0"))
    with pytest.raises(UserError, match=r"gradient_clip_val=1\.0: the training loop .*MutualLearning steps"):
        check(configure("experiment=digits", "method=dml", "trainer.gradient_clip_val=1.0"))


def test_gradients_can_be_clipped_in_a_loop_that_leaves_its_step_to_lightning(configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.OwnStep")
    own = ("experiment=digits_amtml", "loop._target_=tiny_runs.OwnStep")
    check(configure(*own, "trainer.gradient_clip_val=1.0", "+trainer.accumulate_grad_batches=2"))


# An override of every root key.
CHANGED = {
    override.partition("=")[0].partition(".")[0]: override
    for override in (
        "seed=1", "role=teacher", "channels_last=true", "compile=true", "temperature=2", "mixture=logits",
        "hint_pool=1", "teacher_recipe=digits", "teacher_source=live", "cache.logits=float32",
        "expected_defects=[x]", "checkpoint_minutes=1", "resume=never", "prepare=false", "force=true",
        "doctor=false", "debug=true", "paths.outputs=elsewhere", "dataset.mean=[0.5,0.5,0.5]", "data.views=3",
        "student=resnet20", "teacher=[resnet8]", "weighting=random_teacher", "loss=[ce,dkd]", "coef.kd=9",
        "loop=dml", "optimizer.lr=3", "scheduler=constant", "trainer.max_epochs=3", "logger=[]",
    )
}  # fmt: skip
# Keys that change no result.
WITHOUT_TRACE = {
    "expected_defects", "checkpoint_minutes", "resume", "prepare", "force", "doctor", "debug", "paths",
    "logger",
}  # fmt: skip
OF_TEACHERS = {"teacher_source", "cache", "weighting"}
SHARED = {"temperature", "mixture", "hint_pool", "teacher_recipe"}
RUNS = ("method=ce", "method=amtml")


def test_taps_change_the_hash_of_a_run_that_reads_them_but_not_of_a_teacher(configure):
    for method, differs in (("method=fitnet_mkd", True), ("method=avg", False)):
        one = configure("experiment=digits", method)
        other = configure("experiment=digits", method, "student.stages=[layer1,layer3]")
        assert (run_hash(one) != run_hash(other)) is differs
    other = configure("experiment=digits", "method=avg", "teacher.resnet8.hint=layer2")
    assert run_hash(recipe(one, "resnet8")) == run_hash(recipe(other, "resnet8"))


def reads(config, key):
    """Return True if a composed run reads a key, by the text of its nodes."""
    if key in WITHOUT_TRACE:
        return False
    if key in OF_TEACHERS:
        return bool(config.teacher)
    if key == "coef":
        return "kd" in config.loss
    nodes = [config.loss, config.loop, config.teacher, *([config.weighting] if config.teacher else [])]
    text = "".join(OmegaConf.to_yaml(node, resolve=False) for node in nodes)
    return key not in SHARED or bool(re.search(rf"\$\{{{key}\b", text))


@pytest.mark.parametrize("run", RUNS)
def test_keys_that_a_run_does_not_read_leave_its_hash_as_it_is(configure, run):
    base = configure("experiment=digits", run)
    unread = [CHANGED[key] for key in KEYS if not reads(base, key)]
    assert run_hash(configure("experiment=digits", run, *unread)) == run_hash(base)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in WITHOUT_TRACE])
def test_a_key_changes_the_hash_of_each_run_that_reads_it(configure, key):
    reading = [run for run in RUNS if reads(configure("experiment=digits", run), key)]
    assert reading
    for run in reading:
        changed = configure("experiment=digits", run, CHANGED[key])
        assert run_hash(changed) != run_hash(configure("experiment=digits", run)), run


def test_settings_of_the_machine_change_no_hash(configure):
    settings = (
        "data.num_workers=1", "data.eval_batch_size=7", "dataset.train_images=9", "cache.device=mapped",
        "cache.batch_size=3", "cache.probe=1", "teacher.resnet8.min_accuracy=0.5",
    )  # fmt: skip
    base = configure("experiment=digits", "method=avg")
    assert run_hash(configure("experiment=digits", "method=avg", *settings)) == run_hash(base)


def test_a_coefficient_is_typed_for_any_term_and_its_default_is_in_the_terms_file(configure):
    assert configure("loss=[ce,adapter_l2]").coef == {"ce": 1.0, "adapter_l2": 1.0e-4}
    config = configure("loss=[ce]", "coef.kd=2")
    check(config)
    assert run_hash(config) == run_hash(configure("loss=[ce]"))
    with pytest.raises(UserError, match=r"coef.kdd: unknown term; did you mean 'kd'\?"):
        check(configure("coef.kdd=2"))


def test_the_keys_that_a_recipe_takes_from_the_run_are_declared():
    taken = {"paths", "dataset", "prepare", "debug"}
    assert {*handed_to_recipes()} == taken | {
        f"data.{key}" for key in ("seed", "val_size", "train_size", "num_workers")
    }


def test_every_declared_key_has_a_line_of_help():
    for command, keys in COMMANDS.items():
        lines = help_of(command).splitlines()
        assert len(lines) == len([*leaves(keys)])
        assert [line for line in lines if len(line.split(maxsplit=1)) < 2] == []
