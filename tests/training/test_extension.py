"""A completed run is continued up to more epochs, as a run of its own."""

import csv
import json
import shlex
import shutil

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_hash
from amtml_pl.training.extension import most_telling
from amtml_pl.training.settings import settings_of
from amtml_pl.training.shorter_run import shorter_run_note
from sealing import write_record
from tiny_runs import CE, TINY, WATCHED, assert_bitwise_equal, at_step, failing, trained, weights

pytestmark = pytest.mark.slow

LABELS = ("experiment=digits", "method=ce", *CE, "doctor=false")
CONSTANT = "scheduler=constant"


@pytest.fixture
def origin(run, shared, tmp_path):
    """Return the folder of a completed run of `LABELS`, which the tests train once and may change."""
    kept = shared / "origin"
    if not kept.exists():
        _, folder = run(*LABELS, name="first")
        shutil.copytree(folder.path, kept)
    return RunFolder(shutil.copytree(kept, tmp_path / "origin"))


def rows(folder):
    with folder.metrics_file.open() as lines:
        return [*csv.DictReader(lines)]


def rates(folder):
    return [float(row["lr"]) for row in rows(folder)]


def extended(run, job, epochs=4, *, origin, name="extension"):
    return run(*job, f"trainer.max_epochs={epochs}", f"extend={origin.path}", name=name)


def state(folder):
    return torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]


@pytest.mark.parametrize("method", ["ce", "amtml_adapter", "dkd", "mmkd", "dml"])
def test_with_a_constant_rate_an_extension_is_the_longer_run_to_the_bit(run, method):
    images = CE if method in ("ce", "dml") else TINY
    job = ("experiment=digits", f"method={method}", *images, "doctor=false", CONSTANT)
    _, origin = run(*job, name="origin")
    record, extension = extended(run, job, origin=origin)
    straight, whole = run(*job, "trainer.max_epochs=4", name="whole")
    if method == "dkd":  # its warm-up is a share of the epochs, and the origin had its own
        assert record.metrics.keys() == straight.metrics.keys()
        return
    assert record.metrics == straight.metrics
    assert rows(extension) == rows(whole)
    assert_bitwise_equal(weights(extension), weights(whole))
    assert_bitwise_equal(state(extension), state(whole))


def test_an_extension_names_its_origin_and_has_its_own_hash_and_budget(run, configure, origin):
    first = origin.completed()
    longer = (*LABELS, "trainer.max_epochs=4")
    record, _ = extended(run, LABELS, origin=origin)
    assert record.origin.model_dump() == {"folder": str(origin.path), "study": first.study, "epochs": 2}
    assert (record.budget["extended_from_epochs"], first.budget["extended_from_epochs"]) == (2, 0)
    assert record.timing.fit_seconds > first.timing.fit_seconds  # of all epochs
    assert run_hash(configure(*longer)) != run_hash(configure(*longer, f"extend={origin.path}"))
    again, _ = extended(run, LABELS, 5, origin=RunFolder(origin.path.parent / "extension"), name="again")
    assert again.origin.epochs == 4


def test_all_seeds_of_an_extension_are_one_study(run, configure, origin):
    studies, (_, other) = set(), run(*LABELS, "seed=1", name="origin-1")
    for seed, extended_run in enumerate((origin, other)):
        longer = configure(*LABELS, f"seed={seed}", "trainer.max_epochs=4", f"extend={extended_run.path}")
        studies.add(settings_of(longer).study())
    assert len(studies) == 1


@pytest.mark.parametrize("scheduler", ["cosine", "cosine_warmup"])
def test_the_rate_continues_as_in_a_run_of_the_new_length(run, scheduler):
    own = ["scheduler.warmup_epochs=0.5"] if scheduler == "cosine_warmup" else []
    job = (*LABELS, f"scheduler={scheduler}", *own)
    _, origin = run(*job, name="origin")
    _, extension = extended(run, job, origin=origin)
    _, whole = run(*job, "trainer.max_epochs=4", name="whole")
    assert rates(extension) == [*rates(origin), *rates(whole)[2:]]


@pytest.mark.parametrize("method", ["ce", "dkd"])
def test_a_run_that_stopped_early_is_trained_further(run, method):
    stopping = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1")
    never_better = "callbacks.early_stopping.min_delta=1.0"
    job = ("experiment=digits", f"method={method}", *(CE if method == "ce" else TINY), "doctor=false")
    job += (*stopping, never_better)
    record, origin = run(*job, "trainer.max_epochs=6", name="origin")
    assert record.budget["epochs"] == 2
    record, extension = extended(run, job, 6, origin=origin)
    assert record.budget["epochs"] == 3  # patience=1: it waits anew
    assert [int(row["epoch"]) for row in rows(extension)][-1] == 2


def test_an_extension_may_have_another_schedule_rate_and_monitor(run, origin):
    other = (CONSTANT, "optimizer.lr=0.004", "callbacks=[lr_monitor]")
    _, extension = extended(run, (*LABELS, *other), origin=origin)
    assert rates(extension)[2:] == pytest.approx([0.004, 0.004])


def test_a_killed_extension_resumes_to_the_bit(run, monkeypatch):
    job = (*LABELS, "checkpoint_minutes=0")
    _, origin = run(*job, name="origin")
    _, whole = extended(run, job, origin=origin, name="whole")
    for step in (8, 11):
        cut = RunFolder(origin.path.parent / f"cut-{step}")
        with monkeypatch.context() as patched:
            at_step(patched, step, failing(RuntimeError("killed")))
            with pytest.raises(RuntimeError, match="killed"):
                extended(run, job, origin=origin, name=cut.path.name)
        if step == 8:  # its first step: the selected epoch is that of the origin
            assert cut.best_checkpoint.read_bytes() == origin.best_checkpoint.read_bytes()
        extended(run, job, origin=origin, name=cut.path.name)
        assert rows(cut) == rows(whole)
        assert_bitwise_equal(weights(cut), weights(whole))


def test_a_run_with_figures_can_be_extended(run):
    job = ("experiment=digits", "method=amtml", *WATCHED, "doctor=false")
    _, origin = run(*job, name="origin")
    record, folder = extended(run, job, origin=origin)
    assert record.status == "completed"
    assert [*folder.path.glob("events.out.tfevents.*")]


@pytest.mark.parametrize(
    ("override", "text"),
    [("student=resnet14", "student.network.depth=14 (expected 8)"),
     ("data.train_size=90", "data.train_size=90 (expected 100)"),
     ("seed=1", "seed=1 (expected 0)"),
     ("optimizer=adamw", "optimizer._target_=torch.optim.AdamW (expected torch.optim.SGD)"),
     ("loss.ce.label_smoothing=0.1", "loss.ce.label_smoothing=0.1 (expected 0.0)"),
     ("data.balanced=true", "data.balanced=True (expected False)"),
     ("+callbacks.lr_monitor._target_=own_callbacks.Failing",
      "callbacks.lr_monitor._target_=own_callbacks.Failing (expected None)")],
)  # fmt: skip
def test_a_run_with_other_settings_is_refused_with_the_settings_and_the_command(
    run, origin, monkeypatch, override, text
):
    monkeypatch.setenv("AMTML_TARGETS", "own_callbacks.Failing")
    with pytest.raises(UserError, match="has other settings") as refused:
        extended(run, (*LABELS, override), origin=origin)
    assert f"\n  - {text}" in refused.value.what
    assert refused.value.fix == f"the command trainer.max_epochs=4 extend={origin.path}"


def test_the_printed_command_keeps_the_schedule_and_the_rate_that_were_typed(configure, tmp_path):
    first = (
        "python -m amtml_pl.train seed=0 scheduler=cosine_warmup scheduler.warmup_epochs=1 optimizer.lr=0.1"
    )
    begun = RunFolder(tmp_path / "origin")
    trained(configure(*LABELS), begun, command=first)

    def refused(*free):
        typed = shlex.join(["python", "-m", "amtml_pl.train", "seed=1", *free, "extend=x"])
        job = configure(*LABELS, "seed=1", *free, "trainer.max_epochs=4", f"extend={begun.path}")
        with pytest.raises(UserError, match="has other settings") as error:
            trained(job, RunFolder(tmp_path / "extension"), command=typed)
        return error.value.fix.removesuffix(f" trainer.max_epochs=4 extend={begun.path}")

    begin = "python -m amtml_pl.train seed=0"
    assert refused() == first
    assert refused("scheduler=constant", "optimizer.lr=0.004") == (
        f"{begin} scheduler=constant optimizer.lr=0.004"
    )
    assert refused("scheduler=constant") == f"{begin} optimizer.lr=0.1 scheduler=constant"
    assert refused("optimizer=adamw", "optimizer.lr=0.004") == first  # its state would not fit


def test_of_many_other_settings_those_of_data_and_method_come_first_and_the_rest_is_counted():
    others = [f"student.network.width{n}=1 (expected 2)" for n in range(9)]
    method, data = "loss.kd._target_=KD (expected None)", "dataset.name=a (expected b)"
    assert most_telling([*others, method, data]) == [method, data, *others[:6], "and 3 more"]
    assert most_telling(others[:8]) == others[:8]


def test_a_run_that_cannot_be_extended_is_one_message(run, origin, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"max_epochs=2 does not extend .*expected more than its 2 epochs"):
        extended(run, LABELS, 2, origin=origin)
    with pytest.raises(UserError, match="is not a run folder"):
        extended(run, LABELS, origin=RunFolder(tmp_path))
    at_step(monkeypatch, 1, failing(RuntimeError("out of luck")))
    with pytest.raises(RuntimeError):
        run(*LABELS, name="failed")
    with pytest.raises(UserError, match=r"cannot be extended .got failed, expected completed"):
        extended(run, LABELS, origin=RunFolder(tmp_path / "failed"))
    text = origin.config_file.read_text()
    origin.config_file.write_text(text.replace("seed: 0", "seed: ${oc.env:HOME}", 1))
    with pytest.raises(UserError, match=r"config.yaml in .* changed after the run"):
        extended(run, LABELS, origin=origin)
    origin.config_file.write_text(text)
    record = json.loads(origin.record_file.read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(origin.path, record)
    with pytest.raises(UserError, match="images of 'digits' have changed since"):
        extended(run, LABELS, origin=origin)


def test_a_new_run_says_that_a_shorter_one_is_complete_and_what_its_schedule_means(run, configure, capsys):
    _, origin = run(*LABELS, name="origin")
    assert "same settings" not in capsys.readouterr().out
    run(*LABELS, "trainer.max_epochs=4", name="longer")
    output = " ".join(capsys.readouterr().out.split())
    assert f"A run with the same settings and 2 epochs is complete: {origin.path}" in output
    assert f"To continue that run, add extend={origin.path}" in output
    assert "of that run ended at learning rate 0. The extension continues at 0.025" in output
    other = settings_of(configure(*LABELS, "trainer.max_epochs=5", "seed=1"))
    assert not shorter_run_note(other, origin)
