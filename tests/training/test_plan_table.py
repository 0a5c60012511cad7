"""The plan lists all that a run needs before it starts."""

import re
import shlex
from pathlib import Path

import pytest

from amtml_pl.config.build import build_object
from amtml_pl.config.paths import config_directory
from amtml_pl.config.teacher_recipe import Recipe, recipe
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_hash
from amtml_pl.system.console import duration
from amtml_pl.training.assemble import student_network
from amtml_pl.training.execution import EAGER
from amtml_pl.training.plan import found_cache
from amtml_pl.training.plan_table import bytes_per_image, data_steps, make_plan, refuse_missing, show_plan
from amtml_pl.training.settings import settings_of
from archives import official, write_cifar10, write_image_folder

CIFAR = (
    "experiment=cifar10", "method=avg", "student=resnet8_thin", "teacher=[resnet8,vgg8_quarter]",
    "trainer=cpu", "data.val_size=0.5", "dataset.source.mirrors=[]",
)  # fmt: skip


def plan_of(config, done=0):
    settings = settings_of(config)
    source, teachers = settings.dataset.source.build(), settings.teachers()
    student = student_network(settings, [], EAGER)
    cache = found_cache(settings, source, teachers, "train")
    return make_plan(settings, source, student, teachers, hints_of(settings), cache, EAGER, done=done)


def hints_of(settings):
    shapes = [t.fresh().hint_shapes(settings.dataset.image_size) for t in settings.teachers()]
    return {name: shape for each in shapes for name, shape in each.items()}


def test_a_plan_goes_from_the_data_to_the_student_and_knows_what_is_missing(configure, tmp_path, capsys):
    config = configure(*CIFAR, f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers")
    plan = plan_of(config)
    assert ", ".join(step.what.split(" (")[0] for step in plan) == (
        "data set cifar10, packed data, teacher resnet8, teacher vgg8_quarter, teacher outputs, student"
    )
    assert [step.missing for step in plan] == [True, True, True, True, True, False]
    assert all(step.seconds is None for step in plan)  # nothing is timed without data
    show_plan(plan, "Plan")
    shown = capsys.readouterr().out
    assert "this CPU" not in shown
    show_plan(plan, "Plan", on_cpu=False)
    assert "estimated time (this CPU)" in capsys.readouterr().out
    assert "to train for 200 epochs with the recipe cifar10_teacher" in shown
    assert "loss terms ce, kd" in shown


def test_a_plan_finds_raw_data_and_then_packed_data(configure, tmp_path):
    archive = write_cifar10(tmp_path / "data" / "cifar10")
    config = configure(*CIFAR, f"paths.data={tmp_path}/data", official(archive))
    raw, _, *trained = plan_of(config)
    assert (raw.state, raw.missing) == ("found", False)
    assert all(step.seconds > 0 for step in trained)
    packed = pack(build_object(config.dataset.source), Path(config.paths.data) / "packed")
    step = plan_of(config)[0]
    assert step.state == f"packed in {packed.folder}"
    assert step.size >= 40 * 3 * 32 * 32


def test_a_plan_of_an_interrupted_run_counts_the_epochs_that_are_left(configure):
    config = configure("experiment=digits", "method=ce", "trainer=cpu", "trainer.max_epochs=3")
    assert plan_of(config)[-1].state == "3 epochs, loss terms ce; eager"
    assert plan_of(config, done=2)[-1].state == "3 epochs (1 left), loss terms ce; eager"
    assert plan_of(config, done=3)[-1].seconds == 0.0
    config.trainer.max_epochs = 1
    assert plan_of(config)[-1].state == "1 epoch, loss terms ce; eager"


OWN = ("dataset=image_folder", "dataset.name=mine", "dataset.source.folder=/my", "dataset.num_classes=10")


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=digits_amtml", "teacher.resnet8.seed=3", "data.train_size=50", "data.num_workers=2"],
        ["experiment=digits_amtml", "teacher.resnet8.network.widths=[8,8,16,32]"],
        ["experiment=digits_amtml", "teacher.resnet8.recipe_overrides=['optimizer.lr=0.3']"],
        ["experiment=cifar10_amtml_published", "teacher=[resnet8,resnet14]"],
        ["experiment=cifar10", "method=avg", "teacher=[resnet8]", *OWN],
    ],
)
def test_the_command_of_a_teacher_trains_it_where_the_run_looks_for_it(configure, overrides):
    config = configure(*overrides)
    command = shlex.split(Recipe(config, "resnet8").command())
    assert command[:3] == ["python", "-m", "amtml_pl.train"]
    typed = configure(*command[3:])
    assert run_hash(typed) == run_hash(recipe(config, "resnet8"))
    assert typed.role == "teacher"


def test_missing_things_are_one_error_that_names_each_and_how_to_provide_it(configure, tmp_path):
    own = (f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers")
    config = configure(*CIFAR, *own, "prepare=false")
    with pytest.raises(UserError) as raised:
        refuse_missing(plan_of(config))
    text = str(raised.value)
    assert "prepare=false forbids making 5 missing parts of the run" in text
    assert "cifar-10-python.tar.gz" in text
    assert "experiment=cifar10_teacher" in text
    assert "python -m amtml_pl.cache action=build" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(89, "89 s"), (90, "2 min"), (5399, "90 min"), (7200, "2.0 h")]
)
def test_durations_have_a_readable_unit(seconds, text):
    assert duration(seconds) == text


EXPERIMENTS = (config_directory() / "experiment").glob("*.yaml")
STATED = [path.stem for path in EXPERIMENTS if " GB on disk" in path.read_text()]


@pytest.mark.parametrize("experiment", STATED)
def test_the_cache_has_the_size_in_the_experiments_header(configure, experiment):
    header = (config_directory() / "experiment" / f"{experiment}.yaml").read_text()
    stated = float(re.search(r"# Cache: +([\d.]+) GB on disk for all 162 views", header)[1])
    settings = settings_of(configure(f"experiment={experiment}"))
    images = {"cinic10": 90_000, "tiny_imagenet": 90_000}.get(settings.dataset.name, 45_000)
    size = images * 162 * bytes_per_image(settings, len(settings.selected), hints_of(settings))
    assert size / 1e9 == pytest.approx(stated, rel=0.1)


def test_a_schedule_that_does_not_fit_the_run_gives_a_warning(configure, capsys):
    config = configure(*CIFAR, "scheduler=multistep", "trainer.max_epochs=60")
    show_plan(plan_of(config), "Plan")
    shown = " ".join(capsys.readouterr().err.split())
    assert shown.count("warning:") == 1
    assert "scheduler.milestones=[100, 150] does not fit 60 epochs: the run never reaches 100, 150" in shown
    assert "'scheduler.milestones=[30,45]'" in shown
    show_plan(plan_of(configure(*CIFAR, "scheduler=multistep", "trainer.max_epochs=200")), "Plan")
    assert "warning" not in capsys.readouterr().err


def test_a_plan_counts_the_files_that_packing_has_left_out(configure, tmp_path):
    write_image_folder(tmp_path / "own")
    for suffix in (".tif", ".tif", ".gif"):
        cat = tmp_path / "own" / "train" / "cat"
        (cat / f"{len([*cat.iterdir()])}{suffix}").write_bytes(b"II*")
    own = ("dataset=image_folder", f"dataset.source.folder={tmp_path}/own", "dataset.num_classes=3")
    dataset = settings_of(configure("experiment=digits", *own, f"paths.data={tmp_path}/data")).dataset
    source = dataset.source.build()
    pack(source, dataset.packed_root)
    (step,) = data_steps(dataset, source)
    assert step.state.endswith("; ignored 3 files of an unsupported type (.tif 2, .gif 1)")
