"""The presets of ``debug=``: short runs in a folder of their own, which are not results."""

import json

import pytest

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.config.checks import check_values
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_folder
from amtml_pl.teachers.published import refuse_unfinished
from amtml_pl.train import main
from archives import write_image_folder

pytestmark = pytest.mark.slow

RUN = ("experiment=digits_amtml", "student=resnet8_thin", "trainer=cpu", "logger=[]")
FAST = (*RUN, "teacher=[resnet8]")


@pytest.fixture
def places(shared, tmp_path):
    """Return the overrides of a command's folders."""
    paths = {"data": shared / "data", "teachers": tmp_path / "teachers", "outputs": tmp_path / "outputs"}
    return [f"paths.{name}={folder}" for name, folder in paths.items()]


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_fast_run_with_its_teacher_takes_one_short_epoch_and_is_repeated_each_time(
    command, places, tmp_path
):
    first = command(main, *FAST, "debug=fast", *places)
    assert "already completed" not in first
    [folder] = (tmp_path / "outputs" / "debug" / "digits_amtml").iterdir()
    [teacher] = (tmp_path / "teachers" / "debug" / "digits").iterdir()
    for place in (folder, teacher):
        record = record_of(place)
        assert (record["status"], record["debug"]) == ("completed", "fast")
        assert (record["budget"]["epochs"], record["budget"]["train_images"]) == (1, 256)
    again = command(main, *FAST, "debug=fast", *places)
    assert "already completed" not in again
    assert not (tmp_path / "outputs" / "runs").exists()
    with pytest.raises(UserError, match="debug=fast, which is not a result"):
        find_runs(tmp_path / "outputs", "test/acc")
    with pytest.raises(UserError, match="has no completed run"):
        refuse_unfinished(RunFolder(folder))


def test_a_profiled_run_has_the_table_of_lightning_in_its_folder(command, places, tmp_path):
    command(main, *RUN, "method=ce", "teacher=[]", "debug=profiler", *places)
    [folder] = (tmp_path / "outputs" / "debug" / "digits_amtml").iterdir()
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()


@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_a_profiler_leaves_the_hash_of_a_run_as_it_is(configure, profiler):
    base = run_folder(configure(*FAST), "digits", "x")
    assert run_folder(configure(*FAST, f"trainer.profiler={profiler}"), "digits", "x") == base


@pytest.mark.parametrize("preset", ["fast", "overfit", "profiler"])
def test_a_data_set_of_few_images_is_used_whole(command, places, tmp_path, preset):
    photos = write_image_folder(tmp_path / "photos", per_class={".": 10})  # of 3 classes; a fifth is the test
    own = (
        "dataset=one_folder",
        f"dataset.source.folder={photos}",
        "dataset.num_classes=3",
        "data.val_size=4",
    )
    words = ("student=resnet8_thin", "method=avg", "teacher=[resnet8]", "teacher_recipe=digits_teacher")
    command(main, *own, *words, "trainer=cpu", "logger=[]", "doctor=false", f"debug={preset}", *places[1:],
            f"paths.data={tmp_path}")  # fmt: skip
    [folder] = (tmp_path / "outputs" / "debug" / "no_experiment").iterdir()
    [teacher] = (tmp_path / "teachers" / "debug" / "one_folder").iterdir()
    for place in (folder, teacher):
        assert record_of(place)["budget"]["train_images"] == 20


def test_an_overfitted_student_knows_its_few_images(command, places, tmp_path):
    command(main, *RUN, "method=ce", "teacher=[]", "debug=overfit", *places)
    [folder] = (tmp_path / "outputs" / "debug" / "digits_amtml").iterdir()
    names, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    assert len(rows) == 40
    assert float(rows[-1][names.index("train/acc")]) > 0.9


PRESETS = sorted(file.stem for file in (config_directory() / "debug").glob("*.yaml"))
EXPERIMENTS = ("digits_amtml", "cifar100_crd", "cifar10_jpeg_specialists", "cifar100_teacher", "cifar10")


def test_the_presets_are_those_that_this_file_tests():
    assert PRESETS == ["fast", "overfit", "profiler"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_each_kind_of_experiment(configure, preset):
    for experiment in EXPERIMENTS:
        config = configure(f"experiment={experiment}", f"debug={preset}")
        check_values(config)
        assert "/debug/" in str(run_folder(config, experiment, "x"))


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("debug=true", "traceback=true prints tracebacks"),
        ("debug=fdr", "use debug=fast"),
        ("+trainer.fast_dev_run=true", "use debug=fast"),
        ("+trainer.overfit_batches=3", "use debug=overfit"),
        ("+trainer.limit_test_batches=3", "use debug=fast"),
        ("+trainer.callbacks=[]", "use 'callbacks=[ema]'"),
        ("callbacks=[model_checkpoint]", "best.ckpt and last.ckpt are always written"),
        ("callbacks=[rich_progress_bar]", "a terminal always shows the progress"),
        ("logger=[aim]", "docs/loggers.md"),
        ("logger=many_loggers", "'logger=[tensorboard,wandb]'"),
    ],
)
def test_a_usual_name_that_is_not_a_choice_has_a_sentence_that_says_what_to_do(mistake, typed, instead):
    assert instead in mistake("experiment=digits", "method=ce", typed)
