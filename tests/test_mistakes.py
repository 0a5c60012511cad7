"""Mistakes in a configuration are reported with their place, before any data is read."""

import json
import os
import subprocess
import sys

import pytest

from amtml_pl.config.paths import config_directory

SMALL = ("trainer=cpu", "student=resnet8_thin")
# The typed words, by the stage that finds the mistake, and fragments of its message.
TYPED = {
    "optimzer.lr=1": ["optimzer: unknown key; did you mean 'optimizer'? (command line)"],
    "optimizer.lrr=0.1": ["optimizer.lrr: unknown key; did you mean 'lr'?"],
    "student=resnet21": ["student=resnet21: unknown choice; did you mean 'resnet20'?"],
    "lr=0.1": ["lr: unknown key; did you mean 'optimizer.lr'? (command line)"],
    "epochs=3": ["epochs: unknown key; did you mean 'trainer.max_epochs'?"],
    "loss=[ce,kdd]": ["loss=kdd: unknown choice; did you mean 'kd'?"],
    "teacher=[resnet32,resnt56]": ["teacher=resnt56: unknown choice; did you mean 'resnet56'?"],
    "loss.kd.temperature=3": ["loss.kd has settings, but it is not selected"],
    "teacher=[resnet32": ["teacher=[resnet32:", "(command line)"],
    "teacher.a.recipe_overrides=[optimizer.lr=1,logger=[]]": [
        """to pass a list of overrides: "teacher.a.recipe_overrides=['optimizer.lr=1','logger=[]']\"""",
    ],
    r"teacher.a.weights.rename={a=1:b,c\=d:e}": [
        r"to pass an equals sign in braces: 'teacher.a.weights.rename={a\=1:b,c\=d:e}'",
    ],
    "hydra.launcher.partitions=gpu launcher=slurm": [
        "hydra.launcher.partitions: unknown key; did you mean 'partition'?"
    ],
    "optimizer": ["optimizer: missing EQUAL"],
    "trainer=null": ["trainer=null: expected one of ['auto', 'cpu',"],
    "seed=0,1": ["seed=0,1: several values need a sweep (expected -m)"],
    "~optimizer.lrr": ["optimizer.lrr: unknown key"],
}
VALUES = {
    "seed=-1": ["seed=-1: expected a whole number, 0 or more", "(command line)"],
    "temperature=hot": ["temperature='hot': expected a number above 0"],
    "student.input_size=0": ["student.input_size=0: expected a whole number from 1 to 4096, or null"],
    "experiment=digits_amtml teacher.resnet8.input_size=large": ["teacher.resnet8.input_size='large': exp"],
    "coef.kd=x": ["coef.kd='x': expected a number"],
    "trainer.max_epochs=0": ["trainer.max_epochs=0: expected a whole number, 1 or more"],
    "trainer.devices=3": ["data.batch_size=128: the 3 processes (trainer.devices=3", "(conf/data/def"],
    "experiment=digits method=ce loss=[]": ["loss=[]: expected at least one term", "(command line)"],
    "resume=always": ["resume='always': expected auto or never"],
    "temperature=${nothing}": ["temperature cannot be resolved: "],
    "+nonsense=1": ["nonsense: unknown key"],
    "data.mixup=0.2 method=avg experiment=digits": [
        "data.mixup=0.2: mixup blends images",
        "the cache holds",
    ],
    "~data.batch_size": ["data.batch_size is missing"],
    "+trainer.strategy=fsdp": ["trainer.strategy=fsdp: several processes always use DDP"],
}
CONSTRUCTORS = {
    "+student.network.deph=3": ["student.network.deph:", "has no such argument; did you mean 'depth'? (comm"],
    "optimizer.lr=fast": ["optimizer.lr='fast': expected a number (command line)"],
    "scheduler.milestones=[5,x]": ["scheduler.milestones=[5, 'x']: expected Iterable[int]"],
    "scheduler._target_=os.system": ["scheduler._target_=os.system:", "is not an allowed constructor"],
    "~student.network.depth": ["models.cifar_resnet.CifarResNet needs the argument 'depth'"],
    "trainer=gpu": ["this machine has no usable GPU (expected auto or cpu) (conf/trainer/gpu.yaml)"],
    "trainer=ddp": [
        "this machine has no usable GPU (expected auto or cpu; several processes: trainer=ddp_cpu)"
    ],
}
PARTS = {
    "optimizer.lr=-1": ["The optimiser or its scheduler cannot be built: Invalid learning rate: -1"],
    "+trainer.gradient_clip_algorithm=none": ["The trainer cannot be built", "algorithms: ['value', 'norm']"],
    "experiment=digits_amtml student.stages=[layer1,layer9]": [
        "has no module 'layer9'. Similar paths: layer"
    ],
    "experiment=digits_amtml teacher.vgg8_quarter.input_size=4": [
        "fails on images of 4x4 pixels",
        "to a size that the network takes",
    ],
    "experiment=digits method=amtml_adapter student.hint=layr3": [
        "Similar paths: layer3",
        "set stages or hint of student to existing modules",
    ],
    "experiment=digits_amtml student.network.num_classes=7": [
        "The number of student outputs is not the number of classes in 'digits' (got 7, expected 10)"
    ],
    "experiment=digits_amtml teacher.resnet8.network.num_classes=5": [
        "Teacher 'resnet8' has the wrong number of outputs (got 5"
    ],
}
# These end a stage for all others, or are mistakes only alone.
LEFT_OUT = (
    "temperature=${nothing}", "trainer=gpu", "trainer=ddp", "optimzer.lr=1", "+trainer.strategy=fsdp",
    "seed=0,1", "scheduler.milestones=[5,x]",
)  # fmt: skip
MISTAKES = {**TYPED, **VALUES, **CONSTRUCTORS, **PARTS}


def together(stage):
    """Return the mistakes that can be made at once."""
    words = [word for word in stage if "=" in word and " " not in word and word[0] not in "~$"]
    return [word for word in words if word not in LEFT_OUT]


STAGES = ((TYPED, "command line"), (VALUES, "configuration"), (CONSTRUCTORS, "configuration"))
# Alone: each mistake that cannot be made with others, and one of each stage that can.
ALONE = [word for word in MISTAKES if not any(word in together(stage)[1:] for stage, _ in STAGES)]


@pytest.mark.parametrize("typed", ALONE)
def test_a_mistake_is_reported_with_its_place_and_nothing_is_written(mistake, tmp_path, typed):
    output = mistake(*(SMALL if "student" not in typed and "trainer" not in typed else ()), *typed.split(" "))
    for fragment in MISTAKES[typed]:
        assert fragment in output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("stage", "expected"), STAGES, ids=["typed", "values", "constructors"])
def test_all_mistakes_of_a_stage_are_reported_at_once(mistake, stage, expected):
    words = together(stage)
    output = mistake(*words)
    assert f"The {expected} has {len(words)} mistakes" in output
    for word in words:
        assert all(fragment in output for fragment in stage[word]), word


def test_all_parts_of_student_and_teachers_that_do_not_fit_are_named_at_once(mistake):
    wrong = ("student.network.num_classes=7", "teacher.resnet8.network.num_classes=5")
    output = mistake("experiment=digits_amtml", *wrong)
    assert "The configuration has 2 mistakes" in output
    assert "(got 7, expected 10)" in output
    assert "Teacher 'resnet8' has the wrong number of outputs (got 5, expected 10" in output


def test_a_value_of_a_file_is_reported_with_the_file(mistake, tmp_path):
    own = tmp_path / "own" / "optimizer"
    own.mkdir(parents=True)
    text = (config_directory() / "optimizer" / "sgd.yaml").read_text()
    (own / "mine.yaml").write_text(text.replace("momentum:", "momentun:"))
    output = mistake(f"hydra.searchpath=[file://{own.parent}]", "optimizer=mine", *SMALL)
    assert "optimizer.momentun" in output
    assert "did you mean 'momentum'?" in output


def test_a_value_in_a_file_of_a_list_is_reported_with_the_file(mistake, tmp_path):
    for group, package in (("loss", "# @package _global_\nloss:\n  own: "), ("callbacks", "own: ")):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / "own.yaml").write_text(f"{package}{{_target_: os.system}}\n")
    words = ("--config-dir", str(tmp_path / "own"), "experiment=digits", "loss=[ce,own]", "callbacks=[own]")
    output = mistake(*words, "coef={ce:1,own:1}", "+optimizer.lrr=1")
    assert "The configuration has 3 mistakes" in output
    assert output.count(f"({tmp_path}/own/loss/own.yaml)") == 1
    assert output.count(f"({tmp_path}/own/callbacks/own.yaml)") == 1
    assert output.count("(command line)") == 1


@pytest.fixture
def own_student(tmp_path):
    """Return a user's folder with one choice, ``student=mine``."""
    own = tmp_path / "own" / "student"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text((config_directory() / "student" / "resnet8_thin.yaml").read_text())
    return own.parent


@pytest.mark.parametrize("typed", [["student=mini"], ["-m", "student=mini,resnet8_thin"]])
@pytest.mark.parametrize("way", ["--config-dir {}", "hydra.searchpath=[file://{}]"])
def test_choices_of_the_user_s_folder_are_known(mistake, own_student, way, typed):
    output = mistake(*typed[:-1], *way.format(own_student).split(), typed[-1], "trainer=cpu", "optimizer=sdg")
    assert "The command line has 2 mistakes" in output
    assert "student=mini: unknown choice; did you mean 'mine'?" in output


@pytest.mark.parametrize(
    "typed",
    [
        "experiment=own_image dataset.source.folder=photos",
        "method=avgg loss.kd.standardize=true",
        "student=resnet21 student.network.dept=20",
        "teacher=[resnet8,resnet9] teacher.resnet9.seed=1 teacher.resnet8.seed=1",
        "launcher=slrum hydra.launcher.partition=gpu",
    ],
)
def test_a_key_of_an_unknown_choice_does_not_count_as_a_mistake(mistake, typed):
    words = typed.split()
    first = words[0].replace("[resnet8,", "").strip("]")
    assert f"has 1 mistake:\n  - {first}: unknown choice; did you mean" in mistake(*words)
    assert "has 2 mistakes:" in mistake(*words, "student.inputsize=32" if "=[" in typed else "loss=[kdd]")


def test_an_interval_without_a_search_names_the_sweeper_that_searches(mistake):
    output = mistake("-m", "temperature=interval(2,8)", "trainer=cpu")
    assert (
        "an interval needs a search (got hydra/sweeper=basic, expected hydra/sweeper=optuna_study)" in output
    )


def test_a_sweep_over_a_pattern_of_choices_is_checked(mistake):
    output = mistake("-m", "student=glob(resnet8*)", "trainer=cpu", "seed=0,1", "optimzer.lr=1")
    assert "has 1 mistake:" in output
    assert "optimzer: unknown key; did you mean 'optimizer'?" in output


@pytest.mark.parametrize(
    "wrong", ["temperature=0,2 student=resnet8_thin,resnt8", "optimzer.lr=1,2", "seed=0,1 loss=[ce,kdd]"]
)
def test_the_mistakes_of_a_sweep_are_reported_before_its_first_job(mistake, tmp_path, wrong):
    output = mistake("-m", *wrong.split(" "), "trainer=cpu")
    assert "did you mean" in output
    assert not list(tmp_path.rglob("run.json"))


LOADED = """
import atexit, json, sys
from amtml_pl.train import main
atexit.register(lambda: print("MODULES", json.dumps([*sys.modules]), file=sys.stderr))
main()
"""


@pytest.mark.parametrize("words", [["--help"], ["optimzer.lr=1"], ["temperature=0"]])
def test_mistakes_that_need_no_torch_are_reported_without_it(tmp_path, words):
    environment = {**os.environ, "AMTML_OUTPUTS": str(tmp_path)}
    command = [sys.executable, "-c", LOADED, *words]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == (2 if "=" in words[0] else 0)
    loaded = json.loads(ended.stderr.split("MODULES")[1])
    assert "hydra" in loaded
    assert not {"torch", "pytorch_lightning", "torchvision", "numpy", "torchmetrics"} & set(loaded)
