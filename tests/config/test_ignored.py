"""What a command selects in vain, as in a sweep over methods, is ignored and named."""

from pathlib import Path

import pytest
from hydra import compose

from amtml_pl.config.call import call
from amtml_pl.config.ignored import ignored_coefficients, leave_out_teachers

TEACHERS = "teacher=[resnet8,vgg8_quarter]"


def folder_of(*words):
    config = compose("train", overrides=["experiment=digits", *words], return_hydra_config=True)
    return Path(config.hydra.run.dir).name.rpartition("-")[2]


@pytest.mark.parametrize("method", ["ce", "dml"])
def test_the_folder_is_that_of_the_run_without_teachers(configure, method):
    assert folder_of(f"method={method}", TEACHERS) == folder_of(f"method={method}")
    assert folder_of("method=avg", TEACHERS) != folder_of("method=avg")


def test_the_names_of_the_ignored_teachers_are_returned(configure):
    config = configure("experiment=digits", "method=ce", TEACHERS)
    assert leave_out_teachers(config, "ce") == ["resnet8", "vgg8_quarter"]
    assert config == configure("experiment=digits", "method=ce")


@pytest.mark.parametrize("words", [("method=avg",), ("method=ce", "loss=[ce,kd]")])
def test_teachers_that_a_term_may_need_stay(configure, words):
    config = configure("experiment=digits", TEACHERS, *words)
    assert leave_out_teachers(config, words[0].removeprefix("method=")) == []
    assert [*config.teacher] == ["resnet8", "vgg8_quarter"]


@pytest.mark.parametrize("wrong", ["teacher", "loss"])
def test_a_wrong_node_is_left_to_the_check(configure, wrong):
    config = configure("experiment=digits", "method=ce", TEACHERS)
    config[wrong] = None
    assert leave_out_teachers(config, "ce") == []


@pytest.mark.parametrize("name", ["train", "doctor", "cache", "benchmark"])
def test_every_command_of_a_run_leaves_them_out(name):
    jobs = []
    call(name, jobs.append, ["experiment=digits", "method=ce", TEACHERS])
    [job] = jobs
    assert (job.ignored, dict(job.config.teacher)) == (["resnet8", "vgg8_quarter"], {})


def test_a_run_without_a_method_keeps_its_teachers(configure):
    config = configure("experiment=digits", "loss=[ce]")
    assert leave_out_teachers(config, None) == []
    assert len(config.teacher) == 3


def test_a_typed_coefficient_of_an_unselected_term_is_named():
    typed = ["coef.kd=2", "+coef.ce=0.5", "temperature=4", "coef.rkd=1"]
    assert [text.partition(" is ignored")[0] for text in ignored_coefficients(typed, ["ce"])] == [
        "coef.kd=2", "coef.rkd=1",
    ]  # fmt: skip


@pytest.mark.parametrize("typed", ["~coef.kd", "coef={kd:2}"])
def test_a_deleted_coefficient_or_the_whole_node_is_not_named(typed):
    assert [*ignored_coefficients([typed], ["ce"])] == []
