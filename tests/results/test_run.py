"""A completed run, opened in Python, wherever it lies now."""

import csv
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from amtml_pl import load_run
from amtml_pl.errors import UserError
from amtml_pl.results.evaluation.evaluation import evaluate_student
from amtml_pl.results.evaluation.images import own_images
from amtml_pl.results.weighting import own_scheme
from amtml_pl.teachers.live import measure_accuracy, weights_digest
from amtml_pl.weighting.gate import Gate
from amtml_pl.weighting.uniform import UniformWeighting
from rounding import rounding
from sealing import change_record, seal_again, write_record
from tiny_runs import TINY

pytestmark = pytest.mark.numbers


@contextmanager
def changed_config(folder):
    """Yield a run's configuration, then save and seal it."""
    config = OmegaConf.load(folder / "config.yaml")
    yield config
    OmegaConf.save(config, folder / "config.yaml")
    seal_again(folder)


@pytest.mark.slow
def test_the_package_imports_torch_at_the_first_use_of_load_run():
    look = "print('torch' in sys.modules)"
    words = [sys.executable, "-c", f"import sys, amtml_pl as a; {look}; a.load_run; {look}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_code_of_the_documentation_runs_as_it_stands(moved, monkeypatch):
    """The run has two teachers, and lies where the page has its folder."""
    page = (Path(__file__).parent.parent.parent / "docs" / "api.md").read_text()
    page = page.partition("## Open a completed run")[2]
    [place] = re.findall(r'^folder = "(.*)"$', page, re.MULTILINE)
    monkeypatch.chdir(moved.parent)
    shutil.copytree(moved, place)
    made = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)), made)  # noqa: S102
    N, M, K = made["outputs"].logits.shape
    assert (N, M, K) == (100, 2, 10)
    assert made["weights"].shape == (N, M)
    assert 0 <= made["unsure"] < N
    assert made["table"]["val/acc"][made["best"]] == made["run"].record.metrics["val/acc"]
    assert made["evaluation"].metrics["test/acc"] == made["run"].record.metrics["test/acc"]
    assert torch.equal(made["classes"], made["student"](made["images"]).logits.argmax(dim=1))
    assert made["teacher"](made["images"]).logits.shape == (len(made["images"]), K)


def test_anything_but_a_path_is_one_message(moved):
    with pytest.raises(UserError, match=r"\(got FinishedRun, expected str or Path\)"):
        load_run.__wrapped__(load_run(moved))  # without the check of types that only the tests have


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import amtml_pl

    with pytest.raises(AttributeError, match="has no attribute 'laod_run'"):
        amtml_pl.laod_run  # noqa: B018


def test_a_moved_run_gives_its_students_as_they_were_tested(moved, monkeypatch):
    monkeypatch.chdir(moved.parent)
    run = load_run("moved")
    for checkpoint, name in (("best", "test/acc"), ("last", "test/acc_last")):
        student = run.student(checkpoint)
        assert not student.training
        assert not any(parameter.requires_grad for parameter in student.parameters())
        batches = run.data.eval_batches(run.split("test"))
        assert measure_accuracy(student, batches) == pytest.approx(run.record.metrics[name], abs=1e-7)
    kept = load_file(moved / "student.safetensors")
    best = run.student().network.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in best.items())


def test_the_metrics_are_columns_with_one_value_per_epoch(moved):
    run = load_run(moved)
    columns = run.metrics()
    assert columns["epoch"] == [0.0, 1.0]
    with (moved / "metrics.csv").open() as lines:
        assert columns["val/acc"] == [float(row["val/acc"]) for row in csv.DictReader(lines)]
    weights = run.teacher_weights()
    assert list(weights) == list(run.teacher_names) == ["vgg8_quarter", "resnet8"]
    assert [sum(epoch) for epoch in zip(*weights.values(), strict=True)] == pytest.approx([1, 1], abs=1e-5)


def test_the_cached_outputs_of_the_teachers_are_those_of_the_teachers_themselves(moved):
    run = load_run(moved)
    outputs = run.teacher_outputs("train", view=2)
    split = run.split("train")
    assert outputs.logits.shape == (100, 2, 10)
    assert {name.split("/")[0] for name in outputs.hints} == {"vgg8_quarter", "resnet8"}
    images = run.data.augment(split.stored.images[split.rows], torch.arange(100), 2)
    for number, teacher in enumerate(run.teachers):
        own = teacher.load()(images).logits
        # The cache rounds to float16, which keeps eleven digits of two.
        torch.testing.assert_close(outputs.logits[:, number].float(), own, rtol=2**-11, atol=1e-4)


@pytest.mark.parametrize("checkpoint", ["best", "last"])
@pytest.mark.parametrize("method", ["amtml", "amtml_adapter"])
def test_the_weights_of_every_image_are_those_of_the_trained_weighting(moved, run, method, checkpoint):
    adapter = ("experiment=digits", "method=amtml_adapter", *TINY)
    place = moved if method == "amtml" else run(*adapter)[1].path
    run = load_run(place)
    weights = run.sample_weights("train", view=2, checkpoint=checkpoint)
    assert weights.shape == (100, 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(100))
    state = torch.load(place / "checkpoints" / f"{checkpoint}.ckpt", weights_only=True)["state_dict"]
    gate = Gate(2, len(run.data.packed.classes))
    gate.load_state_dict(
        {name.removeprefix("weighting.gate."): state[name] for name in state if ".gate." in name}
    )
    prior = gate(run.teacher_outputs("train", view=2).logits.float())
    if method == "amtml":
        torch.testing.assert_close(weights, prior, rtol=0, atol=1e-5)
        return
    theta, mixing = (state[f"weighting.{name}"] for name in ("theta", "mixing"))
    split = run.split("train")
    images = run.data.augment(split.stored.images[split.rows], torch.arange(100), 2)
    beta = run.student(checkpoint, taps=["layer3"])(images).features["layer3"].amax(dim=(2, 3))
    score = beta / len(mixing) ** 0.5 @ (theta * mixing).T
    within = rounding(9 * 64, layers=8) * float(score.abs().max())
    torch.testing.assert_close(weights, (score + prior.log()).softmax(dim=1), rtol=0, atol=within + 1e-5)


@pytest.mark.parametrize(
    ("part", "target", "printed"),
    [("loop", "distill.loops.mmkd.MMKD", "MMKD computes these weights only during training"),
     ("weighting", "weighting.random_teacher.RandomTeacherWeighting", "weights per batch"),
     ("weighting", "weighting.uniform.UniformWeighting", "does not fit the network")],
)  # fmt: skip
def test_weights_of_whole_batches_are_refused_for_single_images(moved, part, target, printed):
    with changed_config(moved) as config:
        config[part] = {"_target_": f"amtml_pl.{target}"}
    with pytest.raises(UserError, match=printed):
        load_run(moved).sample_weights()


def test_outputs_that_the_cache_does_not_hold_are_named(moved, tmp_path):
    run = load_run(moved)
    expected = r"lacks view 7 of .*logits-train.* \(existing views: \[1, 2\]"
    with pytest.raises(UserError, match=expected):
        run.teacher_outputs(view=7)
    with pytest.raises(UserError, match="lacks the test logits of teacher vgg8_quarter, resnet8"):
        run.teacher_outputs("test")
    with pytest.raises(UserError, match=r"lacks the folder(.|\n)*load_run\(RUN, cache=FOLDER\)"):
        load_run(moved, cache=tmp_path / "empty").teacher_outputs()


def test_a_damaged_store_hides_neither_another_one_nor_the_weights(moved, tmp_path):
    cache = shutil.copytree(load_run(moved).paths["cache"], tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    run = load_run(moved, cache=cache, teachers=tmp_path / "empty")
    whole = evaluate_student(run, own_images(run, "val"), latency=False).metrics
    assert "ensemble/val/acc" in whole
    [kept] = (cache / "digits" / "resnet8").glob("logits-val-*")
    another = kept.with_name("logits-val-00000000")
    shutil.copytree(kept, another)
    (another / "manifest.json").write_text("[]")
    assert evaluate_student(run, own_images(run, "val"), latency=False).metrics == whole
    (kept / "manifest.json").write_text("[]")
    left_out = evaluate_student(run, own_images(run, "val"), latency=False).left_out
    assert left_out.keys() >= {"teacher/resnet8", "ensemble"}
    with_weights = load_run(moved, cache=cache)
    found = evaluate_student(with_weights, own_images(with_weights, "val"), latency=False)
    assert found.left_out == {"latency": "latency=false"}
    assert found.metrics.keys() == whole.keys()
    [rows] = with_weights.data.eval_batches(with_weights.split("val"))
    logits = with_weights.teachers[1].load()(rows.images).logits
    within = 2 * 2**-10 * float(logits.abs().max())  # the cache rounds to float16, one step up at most
    name = "teacher/resnet8/val/nll"
    assert found.metrics[name] == pytest.approx(whole[name], abs=within)


def test_a_published_file_that_is_gone_is_not_downloaded_for_a_finished_run(moved, tmp_path):
    url = "https://unreachable.invalid/folder/my.safetensors"
    with changed_config(moved) as config:
        config.teacher.resnet8.weights.url = url
    (tmp_path / "here").mkdir()
    teacher = load_run(moved, teachers=tmp_path / "here").teachers[1]
    with pytest.raises(UserError, match=r"published/my.safetensors .*does not exist. .*does not download it"):
        teacher.load()
    published = tmp_path / "here" / "published" / "my.safetensors"
    published.parent.mkdir()
    save_file(load_run(moved).teachers[1].load().network.network.state_dict(), published)
    assert weights_digest(teacher.load().network) == teacher.facts.weights_digest


def test_a_teacher_whose_file_has_moved_is_found_by_its_digest(moved, tmp_path):
    """The run named a file, which has moved to the trained teachers or elsewhere."""
    with changed_config(moved) as config:
        config.teacher.resnet8.weights.path = f"{tmp_path}/gone/my.safetensors"
        config.teacher.resnet8.weights.strip_prefixes = ["module."]
    teacher = load_run(moved).teachers[1]
    assert weights_digest(teacher.load().network) == teacher.facts.weights_digest
    here = tmp_path / "here"
    here.mkdir()
    alone = load_run(moved, teachers=here).teachers[1]
    with pytest.raises(
        UserError, match=r"missing below .*here .*gone/my.safetensors of the run does not exist"
    ):
        alone.load()
    state = {f"module.{name}": tensor for name, tensor in teacher.load().network.network.state_dict().items()}
    save_file(state, here / "my.safetensors")
    assert weights_digest(alone.load().network) == teacher.facts.weights_digest
    with changed_config(moved) as config:
        config.teacher.resnet8.weights.path = str(moved / "student.safetensors")
    (here / "my.safetensors").unlink()
    expected = r"student.safetensors of the run has other weights(.|\n)*or with student"
    with pytest.raises(UserError, match=expected):
        load_run(moved, teachers=here).teachers[1].load()


def test_changed_images_are_refused(moved):
    record = json.loads((moved / "run.json").read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(moved, record)
    expected = (
        r"The stored images of 'digits' .* are not in (.|\n)*evaluate run=.* paths.data=.* dataset=digits"
    )
    with pytest.raises(UserError, match=expected):
        load_run(moved).data  # noqa: B018


def test_another_folder_is_refused_with_the_name_of_a_run(moved, tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist, or is not a folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"run.json is missing(.|\n)*such as '.*moved'"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"status": "failed", "error": "out of luck"},
            r"got status failed, expected completed\). Its error was: out of luck",
        ),
        ({"status": "interrupted"}, r"got status interrupted(.|\n)*amtml_pl.train experiment=x"),
        (
            {"format": 9},
            r"has format 9 \(expected 6; a newer version of amtml_pl wrote the file\)(.|\n)*with force",
        ),
        ({"format": None}, r"run.json has format None \(expected 6\)"),
        ({"status": "done"}, r"run.json is damaged: status is 'done'"),
        ({"metrics": {}}, r"run.json is damaged: the record lacks metrics.val/acc"),
    ],
)
def test_a_run_with_an_unusable_record_is_refused_with_the_reason(moved, changes, text):
    change_record(moved, **changes)
    with pytest.raises(UserError, match=text):
        load_run(moved)


def test_a_run_is_still_running_while_its_lock_is_held_and_without_a_record_was_stopped(moved):
    """Teachers are being trained, or `force=true` has removed the old record."""
    change_record(moved, status="interrupted")
    with FileLock(moved / ".lock"), pytest.raises(UserError, match="got status running, expected completed"):
        load_run(moved)
    (moved / "run.json").unlink()
    expected = r"got status running(.|\n)*until the run has ended"
    with FileLock(moved / ".lock"), pytest.raises(UserError, match=expected):
        load_run(moved)
    expected = r"was stopped before its training(.|\n)*repeat the training command"
    with pytest.raises(UserError, match=expected):
        load_run(moved)


@pytest.mark.parametrize(
    ("text", "printed"),
    [("", "is not a run's configuration"), ("a: [", "config.yaml cannot be read")],
)
def test_a_damaged_configuration_is_refused_by_name(moved, text, printed):
    (moved / "config.yaml").write_text(text)
    seal_again(moved)
    with pytest.raises(UserError, match=printed):
        load_run(moved)


def test_a_checkpoint_that_is_missing_damaged_or_of_another_network_is_refused_by_name(moved):
    with changed_config(moved) as config:
        config.student.network.depth = 14
    with pytest.raises(UserError, match=r"best.ckpt does not fit the network: \d+ tensors differ"):
        load_run(moved).student()
    (moved / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(UserError, match=r"best.ckpt does not exist(.|\n)*checkpoint=last"):
        load_run(moved).student()
    (moved / "checkpoints" / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"last.ckpt .* cannot be read"):
        load_run(moved).student("last")


def test_a_mistyped_choice_is_named(moved, monkeypatch):
    """A notebook has no runtime type checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    run = load_run(moved)
    expected = r"checkpoint is unknown \(got 'bset'|has no tset split|view is negative \(got -1"
    for call in (lambda: run.student("bset"), lambda: run.split("tset"), lambda: [*run.images("train", -1)]):
        with pytest.raises(UserError, match=expected):
            call()


def test_a_loop_that_inherits_the_default_step_has_its_weighting(configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.OwnStep")
    config = configure("experiment=digits", "method=avg", "loop._target_=tiny_runs.OwnStep")
    assert isinstance(own_scheme(config, ["resnet8"]), UniformWeighting)
