"""A run from plan to record, with real networks and data, in one process."""

import csv
import json
import shutil

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from amtml_pl.data.module import PackedDataModule
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import LiveTeachers, weights_digest
from amtml_pl.training import pipeline
from archives import official, write_cifar10, write_cifar100, write_image_folder, write_tiny_imagenet
from sealing import write_record
from tiny_runs import CE, TINY, assert_bitwise_equal, at_step, failing, ready, weights

AMTML = ("experiment=digits_amtml", *TINY)
LABELS = ("experiment=digits", "method=ce", *CE)


def other_pixels(folder):
    """Change the image digest in a run's record."""
    record = json.loads((folder / "run.json").read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(folder, record)


def test_a_run_trains_its_teachers_distils_and_describes_itself(moved, shared):
    folder = RunFolder(moved)
    record = folder.completed()
    assert {
        "val/acc", "test/acc", "test/acc_last", "teacher/vgg8_quarter/test/acc", "teacher/resnet8/test/acc",
    } <= set(record.metrics)  # fmt: skip
    assert all(0 <= v <= 1 for k, v in record.metrics.items() if "/acc" in k)
    assert record.timing.teacher_seconds > 0
    assert list(record.loss) == ["ce", "kd", "regression"]
    assert folder.weights_file.is_file()
    for checkpoint in (folder.best_checkpoint, folder.last_checkpoint):
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert not [name for name in state if "teacher" in name]
    assert OmegaConf.load(folder.config_file).student.network.depth == 8
    with folder.metrics_file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(row[key] for row in rows for key in ("val/acc", "loss/regression", "weight/resnet8", "lr"))
    for name in ("resnet8", "vgg8_quarter"):
        own = [RunFolder(path).completed() for path in (shared / "teachers" / "digits").glob(f"{name}-*")]
        assert {each.experiment for each in own} == {"digits_teacher"}
        assert 1 in {each.budget["epochs"] for each in own}


def test_a_completed_run_is_found_and_not_repeated(moved, run, capsys):
    folder = RunFolder(moved)
    first, before = folder.completed(), folder.weights_file.stat().st_mtime_ns
    again, _ = run(*AMTML, name="moved")
    assert again == first
    assert folder.weights_file.stat().st_mtime_ns == before
    assert "The run is already completed" in capsys.readouterr().out


@pytest.mark.numbers
def test_a_seed_decides_the_initial_student_and_the_order_of_the_batches(configure, tmp_path):
    begun = [ready(configure(*LABELS, f"seed={seed}"), RunFolder(tmp_path / "begun")) for seed in (0, 0, 1)]
    first, again, other = (weights_digest(made.module.student.network) for made in begun)
    assert first == again != other
    first, again, other = (next(iter(made.data.train_batches(0))).index.tolist() for made in begun)
    assert first == again != other


@pytest.mark.slow
def test_teachers_that_are_trained_on_the_way_do_not_change_the_student(moved, run, tmp_path):
    _, trains = run(*AMTML, f"paths.teachers={tmp_path}/none", name="trains teachers")
    assert_bitwise_equal(weights(RunFolder(moved)), weights(trains))


def test_a_crash_is_recorded_with_its_reason(run, tmp_path, monkeypatch):
    at_step(monkeypatch, 1, failing(RuntimeError("out of luck")))
    with pytest.raises(RuntimeError, match="out of luck"):
        run(*LABELS, "doctor=false")
    record = RunFolder(tmp_path / "run").record()
    assert (record.status, record.error) == ("failed", "out of luck")


def test_the_test_split_is_read_only_after_the_fit(run, monkeypatch):
    stages = []
    original = PackedDataModule.test_dataloader

    def watched(self):
        stages.append(self.trainer.state.fn.value)
        return original(self)

    monkeypatch.setattr(PackedDataModule, "test_dataloader", watched)
    run(*LABELS, "doctor=false")
    assert stages == ["test", "test"]  # once for the best and once for the last checkpoint


def test_a_teacher_with_a_damaged_record_is_refused_with_its_own_command(moved, own_teachers, run, tmp_path):
    before = (moved / "run.json").read_bytes()
    for file in (tmp_path / "teachers").rglob("run.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "seed": 9}))
    with pytest.raises(UserError, match=r"run\.json is damaged") as refused:
        run(*AMTML, own_teachers, "force=true", name="moved")
    assert refused.value.fix.startswith("python -m amtml_pl.train experiment=digits_teacher")
    assert refused.value.fix.endswith(" force=true")
    assert (moved / "run.json").read_bytes() == before  # it is removed only when all fits together


def test_a_teacher_of_other_pixels_is_refused_with_its_own_command(own_teachers, run, tmp_path):
    for file in (tmp_path / "teachers").rglob("run.json"):
        other_pixels(file.parent)
    with pytest.raises(
        UserError, match=r"(?s)images of 'digits' have changed since.*digits_teacher.*force=true"
    ):
        run(*AMTML, own_teachers)


def test_a_completed_run_is_refused_when_the_pixels_have_changed(moved, run):
    other_pixels(moved)
    with pytest.raises(UserError, match="have changed since the run"):
        run(*AMTML, name="moved")


PRETRAINED = (
    "experiment=digits", "method=avg", *CE, "teacher=[resnet8]", "teacher.resnet8.pretrained=true",
)  # fmt: skip


def test_a_network_whose_constructor_loads_its_weights_is_not_trained(configure, monkeypatch, tmp_path):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.same_weights_each_time")
    constructor = "teacher.resnet8.network._target_=tiny_runs.same_weights_each_time"
    made = ready(configure(*PRETRAINED, constructor), RunFolder(tmp_path / "run"))
    assert 0 <= made.prepared.accuracy["resnet8"]["val"] < 0.5  # random weights
    assert made.module.spent.teacher_passes == {"resnet8": 100}


def test_a_constructor_that_draws_new_weights_is_refused_by_the_cache(configure, tmp_path):
    torch.manual_seed(7)  # else the test before may leave the state in which a run draws
    with pytest.raises(UserError, match=r"(?s)'resnet8' returns different network weights.*pretrained=false"):
        ready(configure(*PRETRAINED), RunFolder(tmp_path / "cached"))
    live = ready(configure(*PRETRAINED, "teacher_source=live"), RunFolder(tmp_path / "live"))
    assert isinstance(live.module.teacher_source, LiveTeachers)


@pytest.mark.numbers
@pytest.mark.slow
def test_a_teacher_with_a_weights_file_is_measured_once_and_gated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record, trained = run("experiment=digits", "method=ce", *TINY[:5], "student=resnet8", name="own teacher")
    nested = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights(trained).items()}}, nested)
    job = (
        "experiment=digits", "method=avg", *CE, "teacher=[resnet8]", f"paths.teachers={tmp_path}/teachers",
        "teacher.resnet8.weights.path=wrapped.pt", "teacher.resnet8.weights.strip_prefixes=['module.']",
    )  # fmt: skip
    own, folder = run(*job, name="student")
    assert f"path: {nested}\n" in folder.config_file.read_text()
    assert own.metrics["teacher/resnet8/val/acc"] == pytest.approx(record.metrics["val/acc"])
    assert own.metrics["teacher/resnet8/test/acc"] == pytest.approx(record.metrics["test/acc"])
    assert len(list((tmp_path / "teachers" / "measured").iterdir())) == 2
    with pytest.raises(
        UserError, match=r"'resnet8' is too low on the val split .got .*expected at least 1.0000"
    ):
        run(*job, "teacher.resnet8.min_accuracy=1.0", name="gated")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["teacher.resnet8.stages=[layer1,stage7]"],
            r"has no module 'stage7'(.|\n)*set stages or hint of teacher.resnet8 to",
        ),
        (["teacher.resnet8.weights.path=no.pt"], r"\nFix: set teacher.resnet8.weights.path to an existing"),
        (
            ["loss=[ce,kd,hint]", "loss.hint.groups={resnet110/layer3: layer1}"],
            r"not selected \(expected one of \['vgg8_quarter'",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_anything_is_trained(run, tmp_path, overrides, text):
    own = (f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers")
    with pytest.raises(UserError, match=text):
        run(*AMTML, *own, *overrides)
    assert not (tmp_path / "teachers").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("trained", [False, True], ids=["no teacher trained", "two of three trained"])
def test_outputs_that_will_not_fit_on_the_disk_are_refused_before_teachers_are_trained(
    run, own_teachers, tmp_path, monkeypatch, trained
):
    usage, folder = shutil.disk_usage(tmp_path), tmp_path / "teachers"
    if not trained:
        shutil.rmtree(folder)
    before = [*folder.glob("*/*")]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=64_000))
    sizes = ", ".join(rf"{name} [\d.]+ (k|M)B" for name in ("vgg8_quarter", "resnet8", "wrn_10_1"))
    with pytest.raises(UserError, match=rf"too little space .*: {sizes}\)(.|\n)*data.views=16"):
        run(*AMTML, own_teachers, "teacher=[vgg8_quarter,resnet8,wrn_10_1]", f"paths.cache={tmp_path}/cache")
    assert [*folder.glob("*/*")] == before


ARCHIVES = {
    "cifar100": lambda folder: write_cifar100(folder / "cifar100", train_per_class=2),
    "tiny_imagenet": lambda folder: write_tiny_imagenet(folder / "tiny_imagenet"),
    "cifar10_jpeg": lambda folder: write_image_folder(
        folder / "cifar10_jpeg", classes=tuple("abcdefghij"), per_class={"train": 4, "test": 1}, suffix=".jpg"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ARCHIVES)
def test_the_full_size_experiments_train_on_small_archives_in_the_official_format(run, tmp_path, dataset):
    """CIFAR-100 runs with its deep teachers; the other data sets with one small teacher."""
    raw = ARCHIVES[dataset](tmp_path / "data")
    small = [f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers"]
    small += ["trainer=cpu", "trainer.max_epochs=1", "data.val_size=0.5"]
    small += ["dataset.num_classes=4"] if dataset == "tiny_imagenet" else []
    names = ("resnet32", "resnet56", "resnet110") if dataset == "cifar100" else ("resnet8",)
    if dataset != "cifar100":
        small += ["teacher=[resnet8]"]
    once = [f"teacher.{name}.recipe_overrides=['trainer.max_epochs=1','logger=[]']" for name in names]
    small += ["cache.logits=float32", "cache.hints=float32"]  # deep teachers of one epoch exceed float16
    small += ["logger=[]", *([official(raw)] if raw.is_file() else [])]
    record, _ = run(f"experiment={dataset}_amtml", *small, *once, name="amtml")
    assert list(record.teachers) == list(names)
    measured = f"teacher/{names[0]}/test/acc"
    if dataset == "cifar100":
        average, _ = run(f"experiment={dataset}", "method=avg", *small, *once, name="avg")
        assert average.metrics[measured] == record.metrics[measured]
        assert run(f"experiment={dataset}", "method=ce", *small, name="ce")[0].status == "completed"


@pytest.mark.slow
def test_the_published_notebook_runs_through_both_of_its_stages(run, tmp_path):
    once = "recipe_overrides=['trainer.max_epochs=1','logger=[]']"
    small = (
        official(write_cifar10(tmp_path / "data" / "cifar10")), f"paths.data={tmp_path}/data", "trainer=cpu",
        f"paths.teachers={tmp_path}/teachers", "teacher=[resnet8,resnet14]", f"teacher.resnet8.{once}",
        f"teacher.resnet14.{once}", "trainer.max_epochs=2", "data.val_size=0.5", "logger=[]",
    )  # fmt: skip
    record, folder = run("experiment=cifar10_amtml_published", *small)
    assert record.status == "completed"
    with folder.metrics_file.open() as lines:
        first, second = csv.DictReader(lines)
    assert float(first["loss/hint"]) > 0
    assert float(second["loss/hint"]) == 0
    assert float(second["loss/adapter_l2"]) == 0


def test_a_second_process_waits_for_the_first_one_in_the_same_folder(moved, run, monkeypatch):
    waited = []
    with FileLock(moved / ".lock") as lock:
        monkeypatch.setattr(pipeline.log, "warning", lambda *text: waited.append(text) or lock.release())
        run(*AMTML, name="moved")
    assert waited == [("Waiting for another process that uses the run folder %s", moved)]


def test_a_completed_run_whose_files_were_changed_is_refused_and_started_over(run):
    job = (*LABELS, "trainer.max_epochs=1", "doctor=false")
    first, folder = run(*job)
    for file in (folder.metrics_file, folder.weights_file, folder.last_checkpoint):
        whole = file.read_bytes()
        file.write_bytes(whole + b"0")
        with pytest.raises(UserError, match=rf"(?s){file.name} in .* changed after the run.*force=true"):
            run(*job)
        file.write_bytes(whole)
    folder.record_file.write_text("no record")
    forced, _ = run(*job, "force=true")
    assert (forced.status, forced.metrics) == ("completed", first.metrics)


@pytest.mark.parametrize(
    ("content", "text"),
    [('{"format": 6, "status": "comp', "is damaged"), ('{"format": 99}', r"format 99 \(expected 6")],
)
def test_a_damaged_record_is_refused_by_name(moved, run, content, text):
    (moved / "run.json").write_text(content)
    with pytest.raises(UserError, match=f"run.json .*{text}"):
        run(*AMTML, name="moved")


def test_an_interrupted_run_with_a_damaged_record_loses_only_its_record(moved):
    folder = RunFolder(moved)
    folder.record_file.write_text(folder.record_file.read_text().replace("completed", "failed"))
    with pytest.raises(UserError, match="is damaged") as refused:
        folder.record()
    assert refused.value.fix == f"rm -r '{folder.record_file}'"
