"""Runs that get a signal to stop, whose numbers break, or whose machine fails."""

import math
import os
import re
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from amtml_pl.distill.non_finite import all_finite, load_reproduction
from amtml_pl.errors import Preempted, UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system import signals
from tiny_runs import CE, TINY, assert_bitwise_equal, at_step, broken_from_step_5, ready, weights

JOB = ("experiment=digits_amtml", *TINY, "checkpoint_minutes=null")
LABELS_ONLY = ("experiment=digits", "method=ce", *CE, "doctor=false")


@pytest.fixture
def whole(moved):
    """The same job without any fault."""
    return RunFolder(moved)


def stopped(run, monkeypatch, step, *job, name="cut"):
    """Leave the folder of a run that gets SIGTERM in the given step."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            run(*job, name=name)


@pytest.mark.numbers
def test_a_run_that_gets_sigterm_saves_after_its_step_and_resumes_there(run, monkeypatch, whole, tmp_path):
    stopped(run, monkeypatch, 5, *JOB)
    folder = RunFolder(tmp_path / "cut")
    saved = torch.load(folder.last_checkpoint, weights_only=True)
    assert (saved["global_step"], saved["PackedDataModule"]) == (6, {"batches_done": 2})  # of 4 in epoch 1
    assert folder.record().status == "interrupted"
    taken = []
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda module: taken.append(module.current_epoch))
        record, cut = run(*JOB, name="cut")
    assert taken == [1]
    assert record.metrics == whole.completed().metrics
    assert_bitwise_equal(weights(whole), weights(cut))
    assert whole.metrics_file.read_text() == cut.metrics_file.read_text()


@pytest.mark.slow
def test_a_moved_folder_is_resumed_and_keeps_its_best_epoch(run, monkeypatch):
    best_first = (*JOB, "trainer.max_epochs=3", "optimizer.lr=0.5", "scheduler=constant")
    _, whole = run(*best_first, name="whole")
    stopped(run, monkeypatch, 9, *best_first, name="before")
    whole.path.with_name("before").rename(whole.path.with_name("after"))
    record, moved = run(*best_first, name="after")
    assert record.metrics == whole.completed().metrics
    assert_bitwise_equal(weights(whole), weights(moved))


@pytest.mark.slow
def test_accumulated_gradients_and_loader_workers_lose_nothing_by_a_stop(run, monkeypatch):
    job = (*JOB, "+trainer.accumulate_grad_batches=2", "data.num_workers=2")
    _, whole = run(*job, name="whole")
    stopped(run, monkeypatch, 2, *job)
    _, cut = run(*job, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
    assert whole.metrics_file.read_text() == cut.metrics_file.read_text()


def test_a_step_that_takes_longer_than_the_grace_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr(signals, "GRACE_SECONDS", 0.2)

    def stop_and_linger(module):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    at_step(monkeypatch, 1, stop_and_linger)
    begun = time.monotonic()
    with pytest.raises(Preempted):
        run(*LABELS_ONLY)
    assert time.monotonic() - begun < 50


def test_a_second_signal_stops_at_once_and_the_handlers_are_restored(run, monkeypatch):
    def insist(module):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal was ignored")

    at_step(monkeypatch, 1, insist)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run(*LABELS_ONLY)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_gradient_that_is_nan_names_its_term_and_leaves_the_weights_alone(run, tmp_path, monkeypatch):
    broken_from_step_5(monkeypatch)
    expected = r"The gradient is not finite at epoch 1, step 5, .*loss/kd.*rows"
    with pytest.raises(UserError, match=expected):
        run(*JOB, "doctor=false", "checkpoint_minutes=0")
    folder = RunFolder(tmp_path / "run")
    assert folder.record().status == "failed"
    assert "loss/kd" in folder.record().error
    saved = torch.load(folder.last_checkpoint, weights_only=True)
    assert saved["global_step"] == 5
    assert all(t.isfinite().all() for t in saved["state_dict"].values())


@pytest.mark.parametrize(("value", "finite"), [(3e38, True), (-math.inf, False), (math.nan, False)])
def test_only_infinite_or_nan_gradients_are_broken(value, finite):
    gradients = [torch.ones(2, 3), torch.tensor([0.0, value]), torch.ones(())]
    assert all_finite(gradients) is finite


def test_the_step_that_broke_is_kept_and_breaks_again(run, configure, tmp_path):
    huge = (*LABELS_ONLY, "optimizer.lr=1e30")
    expected = r"(?s)The loss is not finite at epoch 0.*not_finite.safetensors.*lower optimizer.lr"
    with pytest.raises(UserError, match=expected):
        run(*huge)
    again = ready(configure(*huge), RunFolder(tmp_path / "again"))
    batch = load_reproduction(tmp_path / "run" / "not_finite.safetensors", again.module)
    record = RunFolder(tmp_path / "run").record()
    assert record.status == "failed"
    assert str(batch.index.tolist()) in record.error
    components = again.module.break_down(batch).components
    broken = [each.name for each in components if not each.value.isfinite()]
    assert broken
    assert all(f"loss/{name} = " in record.error for name in broken)


def test_the_code_of_the_documentation_computes_the_step_again(run, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="not_finite"):
        run(*JOB, "doctor=false", "optimizer.lr=1e30")
    page = (Path(__file__).parents[2] / "docs" / "resume.md").read_text()
    [place] = re.findall(r'^failed = Path\("(.*)"\)', page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path(place).parent.mkdir(parents=True)
    (tmp_path / "run").rename(place)
    GlobalHydra.instance().clear()  # as in a new Python
    capsys.readouterr()
    exec(re.search(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)[1], {})  # noqa: S102
    assert re.search(r"^ce nan$", capsys.readouterr().out, re.MULTILINE)


def in_a_process_that_may_write(limit, job):
    """Return a job's error in a process with a limit of file sizes, set when it calls its argument."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            job(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        except UserError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as message:
        return message.read()


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run, whole, tmp_path, monkeypatch):
    every_step = (*JOB, "checkpoint_minutes=0")

    def job(full):
        at_step(monkeypatch, 2, lambda _: full())
        run(*every_step, name="cut")

    message = in_a_process_that_may_write(20_000, job)
    assert "last.ckpt cannot be written" in message
    assert "The previous checkpoint is intact" in message
    folder = RunFolder(tmp_path / "cut")
    assert torch.load(folder.last_checkpoint, weights_only=True)["global_step"] == 2
    assert [file.name for file in folder.path.rglob(".*")] == [".lock"]
    _, cut = run(*every_step, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))


def test_out_of_memory_advises_what_takes_less(run, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda _: torch.empty(2**50))
    with pytest.raises(UserError, match=r"out of memory(.|\n)*resumes from it(.|\n)*smaller data.batch_size"):
        run(*LABELS_ONLY)
    assert RunFolder(tmp_path / "run").record().status == "failed"


@pytest.mark.slow
def test_a_run_that_loses_its_cache_ends_with_one_message_and_resumes(run, whole, tmp_path, monkeypatch):
    cache, away = tmp_path / "outputs" / "cache", tmp_path / "away"

    def unmount(module):
        cache.rename(away)
        cache.write_text("no folder any more")

    with monkeypatch.context() as patch:
        at_step(patch, 3, unmount)
        with pytest.raises(UserError, match=r"written to the cache|cache.*cannot be (read|written)"):
            run(*JOB, name="cut")
    assert RunFolder(tmp_path / "cut").record().status == "failed"
    cache.unlink()
    away.rename(cache)
    _, cut = run(*JOB, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
