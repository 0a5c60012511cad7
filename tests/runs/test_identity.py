"""A run's folder is named by what determines its result."""

import re

import pytest
from omegaconf import OmegaConf

from amtml_pl.config.schema import KEYS
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.runs.identity import found_or_new, run_folder, run_hash, run_label

# An override of every root key.
CHANGED = {
    override.partition("=")[0].partition(".")[0]: override
    for override in (
        "seed=1", "role=teacher", "init_from=x", "extend=x", "execution=eager", "temperature=2",
        "mixture=logits", "hint_pool=1",
        "teacher_recipe=digits", "teacher_seeds=[1]", "teacher_source=live", "cache.logits=float32",
        "expected_defects=[x]", "checkpoint_minutes=1", "resume=never", "prepare=false", "force=true",
        "doctor=false", "traceback=true", "paths.outputs=elsewhere", "dataset.mean=[0.5,0.5,0.5]",
        "data.views=3", "student.input_size=48", "teacher=[resnet8]", "weighting=random_teacher",
        "loss=[ce,dkd]", "coef.kd=9", "loop=dml", "optimizer.lr=3", "scheduler=constant",
        "trainer.max_epochs=3", "logger=[]",
        "callbacks=[ema]", "debug=profiler",
    )
}  # fmt: skip
# Keys that change no result.
WITHOUT_TRACE = {
    "expected_defects", "checkpoint_minutes", "resume", "prepare", "force", "doctor", "traceback", "paths",
    "logger",
}  # fmt: skip
OF_TEACHERS = {"teacher_seeds", "teacher_source", "cache", "weighting"}
SHARED = {"temperature", "mixture", "hint_pool", "teacher_recipe"}
RUNS = ("method=ce", "method=amtml")


def test_the_hash_depends_on_the_order_of_teachers_and_terms_but_not_on_1_0(configure):
    def hashes(*overrides):
        return len({run_hash(configure("experiment=digits_amtml", of)) for of in overrides})

    # The order of the teachers is that of the weights' columns; each term draws parameters after the other.
    assert hashes("teacher=[vgg8_quarter,resnet8,wrn_10_1]", "teacher=[resnet8,vgg8_quarter,wrn_10_1]") == 2
    assert hashes("loss=[ce,hint,regression]", "loss=[ce,regression,hint]") == 2
    assert hashes("coef.kd=1.0", "coef.kd=1") == 1


def test_a_folder_is_found_again_under_any_label(configure):
    config = configure("experiment=digits", "method=ce", "seed=3")
    first = run_folder(config, "digits", "seed-3")
    assert first.name.startswith("seed-3-")
    first.mkdir(parents=True)
    assert run_folder(config, "digits", "another") == first


def test_a_term_added_to_those_of_a_method_makes_the_run_of_the_whole_list(configure):
    added = configure("experiment=digits", "method=avg", "+loss=dist")
    assert list(added.loss) == ["ce", "kd", "dist"]
    assert run_hash(added) == run_hash(configure("experiment=digits", "method=avg", "loss=[ce,kd,dist]"))


def test_labels_are_the_overrides_that_can_change_a_result():
    typed = ["experiment=x", "temperature=2", "loss=[ce,kd]", "paths.data=/x", "force=true", "+a.b=1"]
    assert run_label(typed) == "temperature-2_loss-ce-kd_a.b-1"
    assert run_label(["experiment=digits_amtml"]) == "default"


def test_labels_begin_with_the_method_and_end_with_long_overrides():
    typed = ["teacher.vgg8.recipe_overrides=[trainer.max_epochs=30]", "data.train_size=400", "method=avg"]
    label = run_label([*typed, "temperature=4", "seed=1"])
    assert label == "method-avg_data.train_size-400_temperature-4_seed-1_trainer.max_epochs-30"
    decay = run_label(["optimizer.weight_decay=0.0005", "method=avg"])
    assert decay == "method-avg_weight_decay-0.0005"  # shortened, with the whole value


def test_labels_end_with_the_last_whole_override_that_fits():
    recipe = "teacher.vgg8_quarter.recipe_overrides=[trainer.max_epochs=2]"
    teachers = "teacher=[wrn_10_1,resnet8,vgg8_quarter]"
    label = run_label(
        ["method=ce", "seed=0", "trainer.max_epochs=2", teachers, recipe, "data.train_size=400"]
    )
    short = "method-ce_seed-0_trainer.max_epochs-2_data.train_size-400"
    assert label == f"{short}_resnet8-vgg8_quarter_trainer.max_epochs-2"
    many = [f"coef.term_{number}=0.5" for number in range(20)]
    assert run_label(["method=ce", *many]) == "_".join(
        ["method-ce", *(f"coef.term_{n}-0.5" for n in range(9))]
    )
    assert run_label([f"optimizer.name={'long' * 9}"]) == "long" * 6


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


@pytest.fixture(scope="module")
def hashes():
    """Return the hashes of the runs that are unchanged, once each."""
    return {}


@pytest.fixture
def base_hash(configure, hashes):
    """Return a function that gives the hash of an unchanged run."""

    def found(run):
        if run not in hashes:
            hashes[run] = run_hash(configure("experiment=digits", run))
        return hashes[run]

    return found


@pytest.mark.parametrize("run", RUNS)
def test_keys_that_a_run_does_not_read_leave_its_hash_as_it_is(configure, base_hash, run):
    base = configure("experiment=digits", run)
    unread = [CHANGED[key] for key in KEYS if not reads(base, key)]
    assert run_hash(configure("experiment=digits", run, *unread)) == base_hash(run)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in WITHOUT_TRACE])
def test_a_key_changes_the_hash_of_each_run_that_reads_it(configure, base_hash, key):
    reading = [run for run in RUNS if reads(configure("experiment=digits", run), key)]
    assert reading
    for run in reading:
        changed = configure("experiment=digits", run, CHANGED[key])
        assert run_hash(changed) != base_hash(run), run


def test_settings_of_the_machine_change_no_hash(configure):
    settings = (
        "data.num_workers=1", "data.device=cpu", "data.eval_batch_size=7", "dataset.train_images=9",
        "cache.placement=mapped", "cache.batch_size=3", "cache.probe=1", "teacher.resnet8.min_accuracy=0.5",
    )  # fmt: skip
    base = configure("experiment=digits", "method=avg")
    assert run_hash(configure("experiment=digits", "method=avg", *settings)) == run_hash(base)


def test_the_folder_of_a_sweep_is_found_again_under_an_older_label(tmp_path):
    assert found_or_new(tmp_path, "method-avg", "12345678") == tmp_path / "method-avg-12345678"
    (tmp_path / "older_method-avg-12345678").mkdir()
    assert found_or_new(tmp_path, "method-avg", "12345678") == tmp_path / "older_method-avg-12345678"
