"""Every method composes on every data set, and the doctor finds what it should."""

import json
import re

import pytest
import torch

from amtml_pl import doctor
from amtml_pl.config.build import build_object
from amtml_pl.config.checks import check, constructor_mistakes, value_mistakes
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import weights_digest
from amtml_pl.training.connect import run_doctor
from amtml_pl.training.plan import plan
from amtml_pl.training.settings import settings_of
from amtml_pl.training.stages import RunRequest
from amtml_pl.types import TensorShapes
from test_cache import invoke
from tiny_runs import CE, TINY, assert_bitwise_equal, ready, weights

METHODS = sorted(file.stem for file in (config_directory() / "method").glob("*.yaml"))
SWEEPS = sorted(file.stem for file in (config_directory() / "sweep").glob("*.yaml"))
# Teachers of three families, and images of another size.
PROBLEMS = ("cifar10", "tiny_imagenet")
WITHOUT_TEACHERS = ("ce", "dml", "dml_published")
QUICK = ("amtml", "amtml_adapter", "camkd_published")
LOOPS = {"dml": "MutualLearning", "mtkd_rl": "MTKDRL", "mmkd": "MMKD"}


def tiny(method):
    own = ("loop.meta_every=2", "loop.buffer_size=32") if method == "mmkd" else ()  # it takes meta steps
    return ("experiment=digits", f"method={method}", *(CE if method in WITHOUT_TEACHERS else TINY), *own)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_states_its_source_and_passes_the_check(configure, method):
    text = (config_directory() / "method" / f"{method}.yaml").read_text()
    assert re.search(r"^# (Source:|Ablation of)", text, re.MULTILINE)
    config = configure("experiment=digits", f"method={method}")
    assert [*value_mistakes(config), *constructor_mistakes(config)] == []


@pytest.mark.slow
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_method_composes_on_every_problem(configure, problem):
    check(configure(f"experiment={problem}", f"method={METHODS[0]}"))  # with the recipe of its teachers
    for method in METHODS[1:]:
        config = configure(f"experiment={problem}", f"method={method}")
        assert [*value_mistakes(config), *constructor_mistakes(config)] == []


@pytest.mark.parametrize("method", QUICK)
def test_the_doctor_finds_exactly_the_expected_defects(configure, tmp_path, method):
    """Of other methods test_pairs.py shows it."""
    folder = RunFolder(tmp_path / "run")
    made = ready(configure(*tiny(method)), folder)
    found, expected = run_doctor(made), made.request.settings.expected_defects
    assert sorted(finding.name for finding in found.findings) == sorted(expected)
    found.refuse()
    assert json.loads(folder.doctor_file.read_text())["missing_defects"] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", LOOPS)
def test_a_run_repeats_to_the_bit(run, method):
    first, one = run(*tiny(method), name="one")
    again, two = run(*tiny(method), name="two")
    assert first.metrics == again.metrics
    assert_bitwise_equal(weights(one), weights(two))
    assert first.budget["networks_trained"] == (3 if method == "dml" else 1)
    assert first.loop.endswith(LOOPS[method])
    assert ("mutual" in first.loss) is (method == "dml")


def test_all_methods_start_from_the_same_student_and_see_the_same_batches(configure, tmp_path):
    digests, first_batches = set(), []
    for method in ("ce", "amtml", "dml"):
        made = ready(configure(*tiny(method), "trainer.max_epochs=1"), RunFolder(tmp_path / "run"))
        digests.add(weights_digest(made.module.student.network))
        first_batches.append(made.data.sample(32))
    assert len(digests) == 1
    assert all(torch.equal(batch.images, first_batches[0].images) for batch in first_batches)


def test_a_missing_expected_defect_stops_the_run(configure, tmp_path):
    expected = "expected_defects=[dead-term/kd]"
    made = ready(configure(*tiny("avg"), expected), RunFolder(tmp_path / "run"))
    with pytest.raises(UserError, match=r"dead-term/kd: listed in expected_defects but not found"):
        run_doctor(made).refuse()


@pytest.mark.slow
def test_an_unexpected_defect_stops_a_run_before_it_trains(run, tmp_path):
    with pytest.raises(UserError, match=r"dead-term/regression(.|\n)*expected_defects"):
        run(*tiny("fitnet_mkd_published"), "expected_defects=[]")
    assert not (tmp_path / "run" / "checkpoints").exists()
    record, _ = run(*tiny("fitnet_mkd_published"), "expected_defects=[]", "doctor=false")
    assert record.status == "completed"


@pytest.mark.slow
def test_the_command_ends_with_two_for_a_teacher_with_a_wrong_class_map(tmp_path, shared, capfd):
    trained = "teacher.resnet8.recipe_overrides=['trainer.max_epochs=4','logger=[]']"
    overrides = ("experiment=digits", "method=avg", "trainer=cpu", "teacher=[resnet8]")
    assert invoke(doctor.main, tmp_path, shared, *overrides, trained, "force=true") == 0
    output = capfd.readouterr().out
    assert "No problems found" in output
    own = re.search(r"The run folder is (\S+/resnet8-\w+)", output)[1]
    weights_of = f"teacher.resnet8.weights.path={own}/student.safetensors"
    shifted = "teacher.resnet8.class_map=[1,2,3,4,5,6,7,8,9,0]"
    assert invoke(doctor.main, tmp_path, shared, *overrides, weights_of, shifted) == 2
    assert "wrong-class-map/resnet8" in capfd.readouterr().err


def test_teachers_that_no_term_learns_from_are_refused_with_the_way_out(configure, tmp_path):
    config = configure("experiment=digits")
    with pytest.raises(UserError, match=r"no loss term uses them \(got \['ce'\]\).*\n.*method=ce"):
        plan(RunRequest(settings_of(config), RunFolder(tmp_path), "digits", "the command"))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_is_a_multirun_of_methods_that_exist(sweep):
    """test_documentation.py composes its command."""
    text = (config_directory() / "sweep" / f"{sweep}.yaml").read_text()
    assert "mode: MULTIRUN" in text
    named = re.search(r"^      method: (.+)$", text, re.MULTILINE)
    assert named is None or set(named[1].split(",")) <= set(METHODS)


def test_the_sweep_of_methods_holds_every_corrected_one():
    text = (config_directory() / "sweep" / "methods.yaml").read_text()
    named = set(re.search(r"^      method: (.+)$", text, re.MULTILINE)[1].split(","))
    ablations = {m for m in METHODS if m[:6] == "amtml_"} - {"amtml_adapter"}
    assert named == {m for m in METHODS if not m.endswith("_published")} - ablations


def test_fixed_weights_are_set_as_documented(configure):
    typed = "weighting.weights={vgg8_quarter:1,resnet8:3}"
    config = configure("experiment=digits", "method=avg", *TINY, "weighting=fixed", typed)
    check(config)
    scheme = build_object(config.weighting)
    scheme.build(TensorShapes(classes=10, teachers=("vgg8_quarter", "resnet8")))
    assert scheme.shares.tolist() == [0.25, 0.75]


def test_missing_fixed_weights_are_reported_with_an_override(mistake):
    output = mistake("experiment=digits", "method=avg", *TINY, "weighting=fixed")
    assert "Fix: 'weighting.weights={vgg8_quarter:1,resnet8:1}'" in output
