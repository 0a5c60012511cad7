"""A configuration is checked whole, before any work; a run's folder is named by what decides its result."""

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from amtml_pl.config.checks import check, config_directory
from amtml_pl.config.schema import ROOT
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_folder, run_hash, run_label

EXPERIMENTS = sorted(file.stem for file in (config_directory() / "experiment").glob("*.yaml"))
LEAVES = sorted(
    (file.parent.name, file.stem)
    for group in (
        "dataset",
        "student",
        "teacher",
        "weighting",
        "optimizer",
        "scheduler",
        "trainer",
        "augment",
    )
    for file in (config_directory() / group).glob("*.yaml")
)


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


@pytest.mark.parametrize(("group", "name"), LEAVES)
def test_every_choice_of_every_group_passes_the_check(configure, group, name):
    value = f"[{name}]" if group == "teacher" else name
    needed = ["teacher_recipe=digits_teacher"] if group == "teacher" else []
    if name == "image_folder":
        needed += ["dataset.source.folder=x", "dataset.num_classes=3"]
    if name in ("gpu", "ddp", "slurm"):
        with pytest.raises(UserError, match=r"trainer\.accelerator=gpu: none is found on this machine"):
            check(configure(f"{group}={value}", *needed))
        needed += ["trainer.accelerator=cpu", "++trainer.sync_batchnorm=false"]
    check(configure(f"{group}={value}", *needed))


@pytest.mark.parametrize("name", sorted(f.stem for f in (config_directory() / "loss").glob("*.yaml")))
def test_every_loss_passes_the_check(configure, name):
    check(configure(f"loss=[{name}]"))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["temperature=0"], r"temperature=0: expected a number above 0"),
        (["temperature=-2"], r"temperature=-2: expected a number above 0"),
        (["temperature=hot"], r"temperature='hot': expected a number above 0"),
        (["seed=-1"], r"seed=-1: expected a whole number"),
        (["coef.ce=much"], r"coef.ce='much': expected a number"),
        (["trainer.max_epochs=0"], r"trainer.max_epochs=0: expected a whole number, 1 or more"),
        (
            ["+student.network.deph=3"],
            r"student.network.deph: .*CifarResNet has no such argument; did you mean 'depth'",
        ),
        (["student.network.depth=deep"], r"student.network.depth='deep': expected int"),
        (["~student.network.depth"], r"student.network: .*CifarResNet needs the argument 'depth'"),
        (
            ["student.network._target_=amtml_pl.models.nothing.Net"],
            r"student.network._target_=.* may not be named",
        ),
        (["data.batch_size=a"], r"data.batch_size='a': expected int"),
        (["+loss.kd.temperature=3"], r"loss.kd has settings but is not selected: add it to loss="),
        (["+teacher.resnet56.hint=layer3"], r"teacher.resnet56 has settings but is not selected"),
        (["dataset=image_folder"], r"dataset.source.folder|dataset.num_classes"),
    ],
)
def test_mistakes_are_named_with_their_key_path(configure, overrides, text):
    with pytest.raises(UserError, match=text):
        check(configure(*overrides))


def test_all_mistakes_are_reported_at_once(configure):
    with pytest.raises(UserError, match=r"has 3 mistakes:\n  - seed(.|\n)*temperature(.|\n)*coef.kd"):
        check(configure("temperature=0", "coef.kd=x", "seed=x", "+student.network.deph=3"))
    with pytest.raises(UserError, match=r"has 2 mistakes:\n  - student.network.deph(.|\n)*optimizer.lr"):
        check(configure("+student.network.deph=3", "optimizer.lr=fast"))  # only once the values are sound


def test_the_hash_knows_what_decides_the_result(configure):
    base = run_hash(configure("experiment=digits_amtml"))
    for changed in ("seed=1", "temperature=2", "coef.kd=0.5", "data.seed=1", "teacher=[wrn_10_1,resnet8]"):
        assert run_hash(configure("experiment=digits_amtml", changed)) != base
    swapped = configure("experiment=digits_amtml", "teacher=[vgg8_quarter,resnet8,wrn_10_1]")
    assert run_hash(swapped) != base  # the order of the teachers is the order of the hint groups
    terms = (
        "loss=[ce,hint,regression]",
        "loss=[ce,regression,hint]",
    )  # each draws parameters after the other
    assert len({run_hash(configure("experiment=digits_amtml", of)) for of in terms}) == 2


def test_the_hash_does_not_know_what_changes_nothing(configure):
    base = run_hash(configure("experiment=digits_ce"))
    for idle in (
        "prepare=false",
        "debug=true",
        "temperature=2",
        "coef.kd=9",
        "weighting=adaptive",
        "logger=[]",
    ):
        assert run_hash(configure("experiment=digits_ce", idle)) == base
    whole = run_hash(configure("experiment=digits_amtml", "coef.kd=1.0"))
    assert run_hash(configure("experiment=digits_amtml", "coef.kd=1")) == whole


def test_a_folder_is_found_again_under_any_label(configure):
    config = configure("experiment=digits_ce", "seed=3")
    first = run_folder(config, "digits_ce", "seed-3")
    assert first.name.startswith("seed-3-")
    first.mkdir(parents=True)
    assert run_folder(config, "digits_ce", "another") == first


def test_labels_are_the_overrides_without_what_is_no_part_of_the_run():
    typed = [
        "experiment=digits_amtml",
        "temperature=2",
        "loss=[ce,kd]",
        "paths.data=/x",
        "force=true",
        "+a.b=1",
    ]
    assert run_label(typed) == "temperature-2_loss-ce-kd_a.b-1"
    assert run_label(["experiment=digits_amtml"]) == "default"


@pytest.mark.parametrize(
    "override",
    ["seed=7", "trainer.max_epochs=99", "coef.ce=9", "loss=[ce,kd]", "optimizer.lr=7", "temperature=9",
     "data.batch_size=7", "data.views=3", "scheduler=multistep", "student=resnet20", "weighting=uniform"],
)  # fmt: skip
def test_nothing_of_the_run_but_its_data_reaches_a_teachers_recipe(configure, override):
    plain = recipe(configure("experiment=digits_amtml"), "resnet8")
    changed = recipe(configure("experiment=digits_amtml", override), "resnet8")
    assert run_hash(changed) == run_hash(plain)


def test_the_data_of_the_run_reaches_a_teachers_recipe(configure):
    run = configure("experiment=digits_amtml", "data.seed=4", "data.train_size=200", "data.val_size=50")
    own = recipe(run, "resnet8")
    assert (own.data.seed, own.data.train_size, own.data.val_size) == (4, 200, 50)
    assert own.student == run.teacher.resnet8.network
    assert own.role == "teacher"


def test_a_recipe_is_what_its_own_command_composes(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.seed=2")
    typed = configure("experiment=digits_teacher", "student=resnet8", "seed=2")
    assert run_hash(recipe(run, "resnet8")) == run_hash(typed)


def test_overrides_of_a_single_teachers_recipe_are_its_own(configure):
    run = configure("experiment=digits_amtml", "teacher.resnet8.recipe_overrides=['optimizer.lr=0.3']")
    assert recipe(run, "resnet8").optimizer.lr == 0.3
    assert recipe(run, "wrn_10_1").optimizer.lr == 0.05


def test_a_teacher_without_weights_and_without_recipe_says_how_to_get_either(configure):
    with pytest.raises(
        UserError, match=r"neither weights nor a recipe(.|\n)*teacher.resnet8.weights.path=FILE"
    ):
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


# Of every value at the root: another one, a run that reads it, and one that does not; None: there is none.
WITH_TEACHERS, ALONE = "experiment=digits_avg", "experiment=digits_ce"
READERS = {
    "seed": ("seed=1", ALONE, None),
    "temperature": ("temperature=2", WITH_TEACHERS, ALONE),
    "mixture": ("mixture=logits", WITH_TEACHERS, ALONE),
    "regression_stage": ("regression_stage=1", "method=camkd", WITH_TEACHERS),
    "regression_grid": ("regression_grid=4", "method=camkd", WITH_TEACHERS),
    "hint_pool": ("hint_pool=1", "method=fitnet_mkd", ALONE),
    "teacher_source": ("teacher_source=live", WITH_TEACHERS, ALONE),
    "weighting_lr": ("weighting_lr=0.5", "method=amtml", WITH_TEACHERS),
    "teacher_recipe": ("teacher_recipe=digits", WITH_TEACHERS, ALONE),
    "expected_defects": ("expected_defects=[x]", None, ALONE),
    "channels_last": ("channels_last=true", ALONE, None),
    "compile": ("compile=true", ALONE, None),
    "role": ("role=teacher", ALONE, None),
    "checkpoint_minutes": ("checkpoint_minutes=1", None, ALONE),
    "resume": ("resume=never", None, ALONE),
    "prepare": ("prepare=false", None, ALONE),
    "force": ("force=true", None, ALONE),
    "doctor": ("doctor=false", None, ALONE),
    "debug": ("debug=true", None, ALONE),
}


def test_the_taps_of_a_network_make_another_run_where_a_term_reads_them_and_never_another_teacher(configure):
    for method, differs in (("method=fitnet_mkd", True), ("method=avg", False)):
        one = configure("experiment=digits", method)
        other = configure("experiment=digits", method, "student.stages=[layer1,layer3]")
        assert (run_hash(one) != run_hash(other)) is differs
    other = configure("experiment=digits", "method=avg", "teacher.resnet8.hint=layer2")
    assert run_hash(recipe(one, "resnet8")) == run_hash(recipe(other, "resnet8"))


def test_every_value_at_the_root_has_its_readers_in_the_list():
    assert READERS.keys() == ROOT.keys()


@pytest.mark.parametrize("key", READERS)
def test_a_value_makes_another_run_of_those_alone_that_read_it(configure, key):
    changed, reader, other = READERS[key]
    for run, differs in ((reader, True), (other, False)):
        if run is not None:
            words = [run] if run.startswith("experiment=") else ["experiment=digits_amtml", run]
            assert (run_hash(configure(*words, changed)) != run_hash(configure(*words))) is differs, run
