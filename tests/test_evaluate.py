"""The command that measures a finished run's student."""

import json
import shutil

import pytest

from amtml_pl.evaluate import main
from amtml_pl.results.evaluation.corruptions import CORRUPTIONS
from amtml_pl.results.run import load_run
from amtml_pl.teachers.live import weights_digest
from archives import write_image_folder
from rounding import images_of, rounding, undecided
from sealing import replace_part, write_record

DIGITS = tuple(map(str, range(10)))


@pytest.fixture
def evaluate(command):
    """Return a function that runs the command in this process."""

    def made(*words, status=0, latency="latency=false"):
        return command(main, *words, latency, status=status)

    return made


def written(folder, name="evaluate.json"):
    return json.loads((folder / name).read_text())


def share_that_could_change(teacher, images):
    """Return the share of images to which a cache, filled in other passes, may give another class."""
    logits = teacher.load()(images).logits
    within = rounding(9 * 128, layers=10) * float(logits.abs().max())
    return float(undecided(logits, within).double().mean())


@pytest.mark.numbers
def test_the_numbers_are_those_of_the_run_for_both_checkpoints_and_splits(moved, evaluate):
    record = json.loads((moved / "run.json").read_text())["metrics"]
    cases = (("best", "test", "", "evaluate.json"), ("last", "val", "_last", "evaluate-val-last.json"))
    for checkpoint, split, ending, name in cases:
        printed = evaluate(f"run={moved}", f"checkpoint={checkpoint}", f"split={split}")
        assert f"{moved}/{name}" in printed
        assert f"(seed 0), {'selected' if checkpoint == 'best' else 'last'} epoch, " in printed
        found = written(moved, name)
        assert found["metrics"][f"{split}/acc"] == record[f"{split}/acc{ending}"]
        loss = record[f"{split}/loss{ending}"]
        assert found["metrics"][f"{split}/nll"] == pytest.approx(loss, rel=1e-5)
        assert (found["checkpoint"], found["split"]) == (checkpoint, split)
        assert f"{record[f'{split}/acc{ending}']:.4f}" in printed
        for teacher in load_run(moved).teachers:
            key = f"teacher/{teacher.name}/{split}/acc"
            within = 1e-6 + share_that_could_change(teacher, images_of(load_run(moved), split))
            assert found["metrics"][key] == pytest.approx(record[key], abs=within)


@pytest.mark.slow
def test_everything_that_is_measured_is_printed_and_written(moved, evaluate):
    printed = evaluate(f"run={moved}", "corruptions=true", latency="latency=true")
    found = written(moved)
    names = {"acc", "acc_top5", "nll", "ece", "brier"}
    whose = ("teacher/vgg8_quarter/", "teacher/resnet8/", "ensemble/")
    compared = {f"{who}test/{name}" for who in whose for name in names | {"agreement", "kl"}}
    assert found["metrics"].keys() == {f"test/{name}" for name in names} | compared
    assert found["left_out"] == {}
    assert found["weights_digest"] == weights_digest(load_run(moved).student())
    assert found["ensemble"]["weights"] == "own"
    mean = f"mean weights vgg8_quarter {found['ensemble']['mean_weight']['vgg8_quarter']:.4f}"
    assert f"mixed by the run's own weights (GatedWeighting), {mean}" in printed
    assert found["classes"].keys() == set(DIGITS)
    hits = sum(of["acc"] * of["images"] for of in found["classes"].values())
    assert hits / 360 == pytest.approx(found["metrics"]["test/acc"])
    assert found["corruptions"]["acc"].keys() == CORRUPTIONS.keys()
    assert all(len(values) == 5 for values in found["corruptions"]["acc"].values())
    assert found["size"]["parameters"] == load_run(moved).record.student.parameters
    assert found["size"]["macs"] == load_run(moved).record.student.macs
    assert found["size"]["file_bytes"] == (moved / "student.safetensors").stat().st_size
    for batch in ("batch_1", "batch_128"):
        assert found["latency"][batch]["ms_per_image"] > 0
    assert found["latency"]["cpu"] in printed
    for title in ("ensemble", "by class", "accuracy under corruptions", "ms per image in batches of 128"):
        assert title in printed
    assert [file.name for file in moved.glob(".evaluate*")] == []
    assert "accuracy under corruptions" not in evaluate(f"run={moved}")
    assert written(moved)["corruptions"] == found["corruptions"]
    (moved / "evaluate.json").write_text(json.dumps({**found, "weights_digest": "another student's"}))
    evaluate(f"run={moved}")
    assert written(moved)["corruptions"] is None


def test_earlier_numbers_of_teachers_stay_when_the_teachers_are_missing(moved, evaluate, tmp_path):
    evaluate(f"run={moved}")
    speed = {"ms_per_image": 1.0, "spread": 0.1, "repetitions": 9}
    latency = {"cpu": "another", "threads": 1, "batch_1": speed, "batch_128": speed}
    corruptions = {"seed": 0, "mean_acc": 0.5, "acc": {}}
    whole = {**written(moved), "corruptions": corruptions, "latency": latency}
    (moved / "evaluate.json").write_text(json.dumps(whole))
    (tmp_path / "empty").mkdir()
    gone = [f"paths.{root}={tmp_path}/empty" for root in ("teachers", "cache")]
    for _ in range(2):  # the second time from what the first has kept
        printed = evaluate(f"run={moved}", *gone)
        found = written(moved)
        kept = ("metrics", "ensemble", "latency", "corruptions", "classes")
        assert {name: found[name] for name in kept} == {name: whole[name] for name in kept}
        names = {"teacher/vgg8_quarter", "teacher/resnet8", "ensemble", "latency"}
        assert found["left_out"].keys() == names
        for reason in found["left_out"].values():
            assert reason.count("(the numbers are those of an earlier evaluation)") == 1
            assert reason in printed
        assert "ms per image" not in printed
    (moved / "evaluate.json").write_text(json.dumps({**whole, "weights_digest": "another student's"}))
    evaluate(f"run={moved}", *gone)
    found = written(moved)
    assert found["latency"] is None
    assert found["left_out"]["latency"] == "latency=false"
    assert not [name for name in found["metrics"] if not name.startswith("test/")]


def test_the_table_fits_80_columns(moved, evaluate):
    printed = evaluate(f"run={moved}")
    rows = printed[printed.index("┏") : printed.index("by class")].splitlines()
    assert max(map(len, rows)) <= 80
    table = [row for row in rows if row[0] in "┏┃┡│├└"]
    assert table[1].replace("┃", "").split() == ["acc", "top-5", "NLL", "ECE", "Brier", "agree", "KL"]
    names = [row.replace("│", "").split()[0] for row in table if row.startswith("│")]
    assert names == ["student", "vgg8_quarter", "resnet8", "ensemble"]


def test_without_teachers_the_student_is_measured_and_the_rest_is_listed(moved, evaluate, tmp_path):
    (tmp_path / "empty").mkdir()
    gone = [f"paths.{root}={tmp_path}/empty" for root in ("teachers", "cache")]
    printed = evaluate(f"run={moved}", *gone)
    found = written(moved)
    assert found["left_out"].keys() == {"teacher/vgg8_quarter", "teacher/resnet8", "ensemble", "latency"}
    assert found["ensemble"] is None
    assert "left out: teacher/resnet8: The file with the network weights of teacher 'resnet8'" in printed
    assert not [name for name in found["metrics"] if not name.startswith("test/")]
    evaluate(f"run={moved}", "teachers=false")
    assert written(moved, "evaluate-student.json")["left_out"]["teachers"] == "teachers=false"
    assert written(moved) == found


def test_an_ensemble_without_usable_weights_is_uniform(moved, evaluate):
    """The checkpoint has no state of a weighting, as after a run with a fixed one."""
    confidence = {"_target_": "amtml_pl.weighting.confidence.ConfidenceWeighting"}
    replace_part(moved, "weighting", confidence)
    printed = evaluate(f"run={moved}")
    about = written(moved)["ensemble"]
    assert about["weights"] == "uniform"
    assert "needs the labels" in about["because"]
    assert about["mean_weight"] == pytest.approx({"vgg8_quarter": 0.5, "resnet8": 0.5})
    assert (
        f"mixed by equal weights, mean weights vgg8_quarter 0.5000, resnet8 0.5000; {about['because']}"
        in printed
    )


def test_a_run_is_evaluated_from_any_directory_into_another_file(moved, evaluate, monkeypatch, tmp_path):
    shutil.copytree(moved, tmp_path / "far" / "away")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        evaluate("run=../far/away", "teachers=false", "out=mine/found.json")
    assert (tmp_path / "here" / "mine" / "found.json").is_file()
    assert not [*(tmp_path / "far" / "away").glob("evaluate*.json")]


def test_classes_of_another_data_set_are_matched_by_name(moved, evaluate, tmp_path):
    """The folders sort in the reverse order of the run's classes."""
    run_names = [f"c{9 - k}" for k in range(10)]
    record = json.loads((moved / "run.json").read_text())
    record["dataset"]["classes"] = run_names
    write_record(moved, record)
    folder = tmp_path / "others"
    write_image_folder(folder, classes=tuple(sorted(run_names)), per_class={"test": 3})
    only_test = (
        "dataset=image_folder", f"dataset.source.folder={folder}", "dataset.source.splits.train=null",
        f"paths.data={tmp_path}/data",
    )  # fmt: skip
    (moved / "evaluate.json").write_text("of the run's own images")
    evaluate(f"run={moved}", *only_test)
    assert (moved / "evaluate.json").read_text() == "of the run's own images"
    [file] = moved.glob("evaluate-image_folder-*.json")
    found = written(moved, file.name)
    assert found["dataset"]["digest"].startswith(file.stem.rpartition("-")[2])
    assert found["dataset"]["name"] == "image_folder"
    assert found["dataset"]["images"] == 30
    assert not found["dataset"]["own"]
    assert list(found["classes"]) == run_names
    assert found["metrics"].keys() >= {"test/acc", "teacher/resnet8/test/kl"}
    printed = evaluate(f"run={moved}", *only_test, "split=val", status=2)
    assert "has no split 'val' (expected one of ['test']). Only the data set of the run" in printed
    assert "or remove dataset=" in printed


def test_a_data_set_with_other_classes_is_refused(moved, evaluate, tmp_path):
    write_image_folder(tmp_path / "others", classes=("0", "1", "cat"))
    words = ("dataset=image_folder", f"dataset.source.folder={tmp_path}/others")
    printed = evaluate(f"run={moved}", *words, f"paths.data={tmp_path}/data", status=2)
    assert "has other class names than the run (missing: " in printed
    assert "unexpected: 'cat'" in printed


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ([], "run is missing: expected a run folder, which amtml_pl.train prints"),
        (["run={tmp}"], "is not a run folder"),
        (["run={moved}", "checkpoint=worst"], "checkpoint='worst': expected best or last"),
        (["run={moved}", "spilt=val"], "spilt: unknown key; did you mean 'split'?"),
        (["run={moved}", "dataset=nothing"], "dataset=nothing: unknown choice"),
        (["run={moved}", "dataset=image_folder"], "dataset.source.folder cannot be resolved: Missing"),
        (
            ["run={moved}", "dataset=digits", "dataset.image_size=16"],
            "has another image size than the run (got 16, expected ",
        ),
        (
            ["run={moved}", "dataset=cifar100", "paths.data={tmp}/none"],
            "and the run differ in num_classes (got 100, expected 10)",
        ),
        (["run={moved}", "out={moved}/run.json"], "run.json is not an evaluation. It was not overwritten"),
        (["run={moved}", "out={moved}"], "is a folder"),
    ],
)
def test_a_mistake_is_one_message_and_overwrites_nothing(moved, evaluate, tmp_path, words, printed):
    (moved / "evaluate.json").write_text("before")
    typed = [word.format(moved=moved, tmp=tmp_path) for word in words]
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert printed in evaluate(*typed, status=2)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert not (tmp_path / "none").exists()


def test_all_packed_training_images_are_not_the_runs_own_training_split(moved, evaluate):
    evaluate(f"run={moved}", "teachers=false", "split=train")
    assert written(moved, "evaluate-train-student.json")["dataset"]["images"] == 100
    evaluate(f"run={moved}", "teachers=false", "split=train", "dataset=digits")
    [whole] = moved.glob("evaluate-digits-*-train-student.json")
    assert written(moved, whole.name)["dataset"]["images"] == 1437


@pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
def test_a_run_with_one_changed_digit_is_refused_with_the_command_that_repeats_it(moved, evaluate, name):
    text = (moved / name).read_text()
    digit = next(letter for letter in reversed(text) if letter in "123456789")
    before, _, after = text.rpartition(digit)
    (moved / name).write_text(f"{before}0{after}")
    printed = evaluate(f"run={moved}", status=2)
    assert name in printed
    assert ("is damaged: the digest" if name == "run.json" else "changed after the run") in printed
    assert "force=true" in printed
    assert not (moved / "evaluate.json").exists()
