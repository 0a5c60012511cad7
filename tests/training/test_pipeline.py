"""A run from plan to record, with real networks and data, in one process."""

import csv
import json
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training import pipeline
from archives import (
    official,
    write_cifar10,
    write_cifar100,
    write_cinic10,
    write_image_folder,
    write_tiny_imagenet,
)
from sealing import write_record
from tiny_runs import CE, TINY, WATCHED, assert_bitwise_equal, weights


def test_the_main_job_trains_its_teachers_distils_and_describes_itself(run, tmp_path):
    own_teachers = f"paths.teachers={tmp_path}/teachers"
    record, folder = run("experiment=digits_amtml", *WATCHED, own_teachers)
    assert record.status == "completed"
    assert {
        "val/acc", "test/acc", "test/acc_last", "teacher/vgg8_quarter/test/acc", "teacher/resnet8/test/acc",
    } <= set(record.metrics)  # fmt: skip
    assert all(0 <= v <= 1 for k, v in record.metrics.items() if "/acc" in k)
    assert record.timing.teacher_seconds > 0
    assert list(record.loss) == ["ce", "kd", "angle", "hint", "adapter", "adapter_entropy", "adapter_l2"]
    assert folder.weights_file.is_file()
    for checkpoint in (folder.best_checkpoint, folder.last_checkpoint):
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert not [name for name in state if "teacher" in name]
    assert OmegaConf.load(folder.config_file).student.network.depth == 8
    assert list(folder.path.glob("events.out.tfevents.*"))
    with folder.metrics_file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(row[key] for row in rows for key in ("val/acc", "loss/hint", "weight/resnet8", "lr"))
    teachers = sorted((tmp_path / "teachers" / "digits").iterdir())
    assert [path.name.rsplit("-", 1)[0] for path in teachers] == ["resnet8", "vgg8_quarter"]
    for path in teachers:
        own = RunFolder(path).completed()
        assert own.budget["epochs"] == 1
        assert own.experiment == "digits_teacher"


def test_a_completed_run_is_found_and_not_repeated_unless_forced(run, capsys):
    first, folder = run("experiment=digits", "method=ce", *CE)
    before = folder.weights_file.stat().st_mtime_ns
    again, _ = run("experiment=digits", "method=ce", *CE)
    assert again == first
    assert folder.weights_file.stat().st_mtime_ns == before
    assert "Already completed" in capsys.readouterr().out
    forced, _ = run("experiment=digits", "method=ce", *CE, "force=true")
    assert folder.weights_file.stat().st_mtime_ns > before
    assert forced.metrics == first.metrics


@pytest.mark.numbers
def test_two_runs_with_the_same_seed_give_bitwise_equal_students_and_another_seed_does_not(run):
    _, first = run("experiment=digits_amtml", *TINY, name="first")
    _, second = run("experiment=digits_amtml", *TINY, name="second")
    assert_bitwise_equal(weights(first), weights(second))
    _, other = run("experiment=digits_amtml", *TINY, "seed=1", name="other")
    assert not torch.equal(weights(first)["fc.weight"], weights(other)["fc.weight"])


@pytest.mark.slow
def test_the_result_does_not_depend_on_loader_workers(run):
    _, none = run("experiment=digits", "method=ce", *CE, name="none")
    _, two = run("experiment=digits", "method=ce", *CE, "data.num_workers=2", name="two")
    assert_bitwise_equal(weights(none), weights(two))


@pytest.mark.slow
def test_teachers_that_are_trained_on_the_way_do_not_change_the_student(run, tmp_path):
    job = ("experiment=digits", "method=avg", *TINY, f"paths.teachers={tmp_path}/teachers")
    _, trains = run(*job, name="trains teachers")
    _, finds = run(*job, name="finds them")
    assert_bitwise_equal(weights(trains), weights(finds))


def interrupt_at(monkeypatch, step, error=KeyboardInterrupt):
    original = DistillModule.training_step

    def faulty(self, batch, batch_idx):
        if self.global_step == step and self.teacher_source is not None:
            raise error
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DistillModule, "training_step", faulty)


@pytest.mark.parametrize(
    "step", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(6, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_resumes_and_ends_as_if_it_had_not_been(run, monkeypatch, step):
    job = ("experiment=digits_amtml", *TINY)
    _, whole = run(*job, name="whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            run(*job, name="cut")
    folder = RunFolder(whole.path.with_name("cut"))
    assert folder.record().status == "interrupted"
    assert (
        torch.load(folder.last_checkpoint, weights_only=True)["epoch"] == (0 if step < 4 else 1) or step < 8
    )
    record, cut = run(*job, name="cut")
    assert record.metrics == whole.completed().metrics
    assert_bitwise_equal(weights(whole), weights(cut))
    assert [r.split(",")[0] for r in cut.metrics_file.read_text().splitlines()] == ["epoch", "0", "1"]


def test_a_crash_is_recorded_with_its_reason(run, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 1, RuntimeError("out of luck"))
    with pytest.raises(RuntimeError, match="out of luck"):
        run("experiment=digits_amtml", *TINY)
    record = RunFolder(tmp_path / "run").record()
    assert (record.status, record.error) == ("failed", "out of luck")


def test_a_loss_that_is_not_a_number_fails_the_run_in_words(run, tmp_path):
    with pytest.raises(UserError, match=r"stopped being a number at epoch 0(.|\n)*lower optimizer.lr"):
        run("experiment=digits", "method=ce", *CE, "optimizer.lr=1e30")
    record = RunFolder(tmp_path / "run").record()
    assert record.status == "failed"
    assert "loss/ce = nan" in record.error


def test_the_test_split_is_read_only_after_the_fit(run, monkeypatch):
    stages = []
    original = PackedDataModule.test_dataloader

    def watched(self):
        stages.append(self.trainer.state.fn.value)
        return original(self)

    monkeypatch.setattr(PackedDataModule, "test_dataloader", watched)
    run("experiment=digits", "method=ce", *CE)
    assert stages == ["test", "test"]  # once for the best and once for the last checkpoint


def test_a_teacher_with_a_damaged_record_is_refused_with_its_own_command(run, tmp_path):
    job = (
        "experiment=digits",
        "method=avg",
        *TINY,
        f"paths.teachers={tmp_path}/teachers",
        "trainer.max_epochs=1",
    )
    _, folder = run(*job)
    before = folder.record_file.read_bytes()
    for file in (tmp_path / "teachers").rglob("run.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "seed": 9}))
    with pytest.raises(UserError, match=r"run\.json is damaged") as refused:
        run(*job, "force=true")
    assert refused.value.fix.startswith("python -m amtml_pl.train experiment=digits_teacher")
    assert refused.value.fix.endswith(" force=true")
    assert folder.record_file.read_bytes() == before  # what is there is removed only when all fits together


def test_an_interrupted_run_with_a_damaged_record_loses_its_record_alone(run):
    _, folder = run("experiment=digits", "method=ce", *CE)
    folder.record_file.write_text(folder.record_file.read_text().replace("completed", "failed"))
    with pytest.raises(UserError, match="is damaged") as refused:
        folder.record()
    assert refused.value.fix == f"rm -r '{folder.record_file}'"


@pytest.mark.slow
def test_a_teacher_that_was_trained_on_other_pixels_is_refused_with_the_command_that_trains_it_anew(
    run, tmp_path
):
    job = ("experiment=digits", "method=avg", *TINY, f"paths.teachers={tmp_path}/teachers")
    run(*job)
    for file in (tmp_path / "teachers").rglob("run.json"):
        record = json.loads(file.read_text())
        record["dataset"]["digest"] = "0" * 64
        write_record(file.parent, record)
    with pytest.raises(
        UserError, match=r"was trained on other images of 'digits'(.|\n)*digits_teacher.*force=true"
    ):
        run(*job, "seed=1", name="another")


def test_a_run_is_not_taken_for_completed_when_the_pixels_have_changed(run, tmp_path):
    _, folder = run("experiment=digits", "method=ce", *CE)
    record = json.loads(folder.record_file.read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(folder.path, record)
    with pytest.raises(UserError, match="than are packed now"):
        run("experiment=digits", "method=ce", *CE)


def test_a_network_whose_constructor_loads_its_weights_is_taken_as_it_is(run, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.same_weights_each_time")
    own = ("teacher=[resnet8]", "teacher.resnet8.pretrained=true")
    constructor = "teacher.resnet8.network._target_=tiny_runs.same_weights_each_time"
    record, _ = run("experiment=digits", "method=avg", *CE, *own, constructor)
    assert 0 <= record.metrics["teacher/resnet8/test/acc"] < 0.5  # fresh weights: nothing was trained
    assert record.cache.teacher_passes == {"resnet8": 2.0}


def test_a_constructor_that_draws_its_weights_anew_is_refused_by_the_cache_and_taken_live(run):
    own = ("teacher=[resnet8]", "teacher.resnet8.pretrained=true")
    with pytest.raises(UserError, match=r"(?s)constructor of teacher 'resnet8' gives other weights.*live"):
        run("experiment=digits", "method=avg", *CE, *own)
    record, _ = run("experiment=digits", "method=avg", *CE, *own, "teacher_source=live", name="live")
    assert record.teacher_source == "live"


def test_prepare_false_lists_everything_that_is_missing(run, tmp_path):
    nothing = (f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers", "prepare=false")
    wanted = (
        r"(?s)and 5 of what.*packed data.*vgg8_quarter.*amtml_pl.train experiment=digits_teacher .*student="
    )
    with pytest.raises(UserError, match=wanted):
        run("experiment=digits_amtml", *TINY, *nothing)


def trained_teacher(run, tmp_path):
    record, folder = run("experiment=digits", "method=ce", *TINY[:5], "student=resnet8", name="own teacher")
    return record, folder.weights_file


@pytest.mark.numbers
@pytest.mark.slow
def test_a_teacher_of_ones_own_is_measured_once_and_gated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, file = trained_teacher(run, tmp_path)
    nested = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in load_file(file).items()}}, nested)
    job = (
        "experiment=digits", "method=avg", *CE, "teacher=[resnet8]", f"paths.teachers={tmp_path}/teachers",
        "teacher.resnet8.weights.path=wrapped.pt", "teacher.resnet8.weights.strip_prefixes=['module.']",
    )  # fmt: skip
    own, folder = run(*job, name="student")
    assert f"path: {nested}\n" in folder.config_file.read_text()
    assert own.metrics["teacher/resnet8/val/acc"] == pytest.approx(record.metrics["val/acc"])
    assert own.metrics["teacher/resnet8/test/acc"] == pytest.approx(record.metrics["test/acc"])
    assert len(list((tmp_path / "teachers" / "measured").iterdir())) == 2
    with pytest.raises(UserError, match=r"'resnet8' reaches an accuracy of .*expected at least 1.0000"):
        run(*job, "teacher.resnet8.min_accuracy=1.0", name="gated")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["student.stages=[layer9]"], r"has no module 'layer9'. The closest: layer"),
        (["teacher.resnet8.hint=stage7"], r"has no module 'stage7'"),
        (["student.hint=layer8"], r"has no module 'layer8'"),
        (["loss.hint.groups={resnet110/layer3: layer1}"], r"not selected; selected are \['vgg8_quarter'"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_trained(run, tmp_path, overrides, text):
    own = (f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers")
    with pytest.raises(UserError, match=text):
        run("experiment=digits_amtml", *TINY, *own, *overrides)
    assert not (tmp_path / "teachers").exists()
    assert not (tmp_path / "data").exists()


ARCHIVES = {
    "cifar10": lambda folder: write_cifar10(folder / "cifar10"),
    "cifar100": lambda folder: write_cifar100(folder / "cifar100", train_per_class=2),
    "cinic10": lambda folder: write_cinic10(folder / "cinic10"),
    "tiny_imagenet": lambda folder: write_tiny_imagenet(folder / "tiny_imagenet"),
    "cifar10_jpeg": lambda folder: write_image_folder(
        folder / "cifar10_jpeg", classes=tuple("abcdefghij"), per_class={"train": 4, "test": 1}, suffix=".jpg"
    ),
}


# Whose student and teachers are those of another one: here its images alone are in question.
SAME_NETWORKS = ("cinic10", "cifar10_jpeg")


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ARCHIVES)
def test_the_full_size_experiments_train_on_small_archives_in_the_official_format(run, tmp_path, dataset):
    raw = ARCHIVES[dataset](tmp_path / "data")
    small = [f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers"]
    small += ["trainer=cpu", "trainer.max_epochs=1", f"data.val_size={0 if dataset == 'cinic10' else 0.5}"]
    small += ["dataset.num_classes=4"] if dataset == "tiny_imagenet" else []
    names = ("densenet121", "vgg19", "resnet110")
    if dataset in ("cifar100", "tiny_imagenet"):
        names = ("resnet32", "resnet56", "resnet110")
    if dataset in SAME_NETWORKS:
        names = ("resnet8",)
        small += ["teacher=[resnet8]"]
    once = [f"teacher.{name}.recipe_overrides=['trainer.max_epochs=1','logger=[]']" for name in names]
    small += ["cache.logits=float32", "cache.hints=float32"]  # deep teachers of one epoch exceed float16
    small += ["logger=[]", *([official(raw)] if raw.is_file() else [])]
    record, _ = run(f"experiment={dataset}_amtml", *small, *once, name="amtml")
    assert list(record.teachers) == list(names)
    measured = f"teacher/{names[0]}/test/acc"
    if dataset == "cifar100":  # once: the others have teachers and recipes like these
        average, _ = run(f"experiment={dataset}", "method=avg", *small, *once, name="avg")
        assert average.metrics[measured] == record.metrics[measured]
        assert run(f"experiment={dataset}", "method=ce", *small, name="ce")[0].status == "completed"


@pytest.mark.slow
def test_the_released_notebook_runs_through_both_of_its_stages(run, tmp_path):
    small = [
        official(write_cifar10(tmp_path / "data" / "cifar10")),
        f"paths.data={tmp_path}/data",
        f"paths.teachers={tmp_path}/teachers",
        "teacher=[resnet8,resnet14]",
    ]
    once = "recipe_overrides=['trainer.max_epochs=1','logger=[]']"
    small += [f"teacher.{name}.{once}" for name in ("resnet8", "resnet14")]
    small += ["trainer=cpu", "trainer.max_epochs=2", "data.val_size=0.5", "logger=[]"]
    record, folder = run("experiment=cifar10_amtml_released", *small)
    assert record.status == "completed"
    with folder.metrics_file.open() as lines:
        first, second = csv.DictReader(lines)
    assert float(first["loss/hint"]) > 0
    assert float(second["loss/hint"]) == 0
    assert float(second["loss/adapter_l2"]) == 0


def test_a_second_process_waits_for_the_first_one_in_the_same_folder(run, tmp_path, caplog):
    from filelock import FileLock

    folder = tmp_path / "run"
    folder.mkdir()
    lock = FileLock(folder / ".lock")
    lock.acquire()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.log, "warning", lambda *args: lock.release())
            record, _ = run("experiment=digits", "method=ce", *CE)
    finally:
        lock.release()
    assert record.status == "completed"


def test_a_completed_run_whose_files_were_changed_is_refused_and_started_over(run, tmp_path):
    _, folder = run("experiment=digits", "method=ce", *CE, "trainer.max_epochs=1", "doctor=false")
    for file in (folder.metrics_file, folder.weights_file, folder.last_checkpoint):
        whole = file.read_bytes()
        file.write_bytes(whole + b"0")
        with pytest.raises(UserError, match=rf"(?s){file.name} in .* was changed after the run.*force=true"):
            run("experiment=digits", "method=ce", *CE, "trainer.max_epochs=1", "doctor=false")
        file.write_bytes(whole)
    folder.record_file.write_text("no record")
    record, _ = run(
        "experiment=digits", "method=ce", *CE, "trainer.max_epochs=1", "doctor=false", "force=true"
    )
    assert record.status == "completed"


def test_a_damaged_record_is_refused_by_name(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"format": 3, "status": "comp')
    with pytest.raises(UserError, match=r"run.json is damaged"):
        run("experiment=digits", "method=ce", *CE)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="has format 99; expected 3"):
        run("experiment=digits", "method=ce", *CE)
    shutil.rmtree(tmp_path / "run")
