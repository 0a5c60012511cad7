"""What a run does when it is told to stop, when numbers break, and when the machine gives out."""

import math
import os
import resource
import signal
import time

import pytest
import torch

from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.non_finite import all_finite, load_reproduction
from amtml_pl.errors import Preempted, UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system import signals
from tiny_runs import CE, TINY, assert_bitwise_equal, ready, weights

JOB = ("experiment=digits_amtml", *TINY, "checkpoint_minutes=null")
LABELS_ONLY = ("experiment=digits", "method=ce", *CE, "doctor=false")


def at_step(monkeypatch, number, happens):
    """Lets something happen in the given step, from 0, of a student with or without teachers."""
    count = StudentModule.update_metrics

    def counted(self, *arguments):
        if self.global_step == number and not self.trainer.default_root_dir.count("teachers/digits"):
            happens(self)
        count(self, *arguments)

    monkeypatch.setattr(StudentModule, "update_metrics", counted)


@pytest.fixture
def whole(moved):
    """The same job, where nothing has happened to it."""
    return RunFolder(moved)


def stopped(run, monkeypatch, step, *job, name="cut"):
    """Leaves the folder of a run that is told to stop in the given step."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted):
            run(*job, name=name)


def test_a_run_that_is_told_to_stop_saves_after_its_step_and_goes_on_there(run, monkeypatch, whole, tmp_path):
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
def test_a_folder_that_was_moved_is_gone_on_with_and_keeps_its_best_epoch(run, monkeypatch):
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


def test_a_second_signal_is_obeyed_at_once_and_signals_are_handled_as_before_afterwards(run, monkeypatch):
    def insist(module):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one was not obeyed")

    at_step(monkeypatch, 1, insist)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        run(*LABELS_ONLY)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


class BrokenGradient(torch.autograd.Function):
    """The value as it is, with a gradient that is no number."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def broken_from_step_5(monkeypatch):
    from amtml_pl.losses.soft_targets import SoftTargetLoss

    forward = SoftTargetLoss.forward
    steps = []

    def broken(self, step):
        steps.append(step)
        return BrokenGradient.apply(forward(self, step)) if len(steps) > 5 else forward(self, step)

    monkeypatch.setattr(SoftTargetLoss, "forward", broken)


def test_a_gradient_that_is_no_number_names_its_term_and_leaves_the_weights_alone(run, tmp_path, monkeypatch):
    broken_from_step_5(monkeypatch)
    expected = r"The gradient stopped being a number at epoch 1, step 5 .*loss/kd.*Rows"
    with pytest.raises(UserError, match=expected):
        run(*JOB, "doctor=false", "checkpoint_minutes=0")
    folder = RunFolder(tmp_path / "run")
    assert folder.record().status == "failed"
    assert "loss/kd" in folder.record().error
    saved = torch.load(folder.last_checkpoint, weights_only=True)
    assert saved["global_step"] == 5
    assert all(t.isfinite().all() for t in saved["state_dict"].values())


@pytest.mark.parametrize(("value", "finite"), [(3e38, True), (-math.inf, False), (math.nan, False)])
def test_a_gradient_is_broken_when_a_number_of_it_is_none_however_large_it_is(value, finite):
    gradients = [torch.ones(2, 3), torch.tensor([0.0, value]), torch.ones(())]
    assert all_finite(gradients) is finite


def test_the_step_that_broke_is_kept_and_breaks_again(run, configure, tmp_path):
    huge = (*LABELS_ONLY, "optimizer.lr=1e30")
    expected = r"(?s)The loss stopped being a number at epoch 0.*not_finite.safetensors.*lower optimizer.lr"
    with pytest.raises(UserError, match=expected):
        run(*huge)
    again = ready(configure(*huge), RunFolder(tmp_path / "again"))
    batch = load_reproduction(tmp_path / "run" / "not_finite.safetensors", again.module)
    record = RunFolder(tmp_path / "run").record()
    named = record.error
    assert record.status == "failed"
    assert str(batch.index.tolist()) in named
    values = {
        objective.name: float(objective.value) for objective in again.module.break_down(batch).components
    }
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    assert broken
    assert all(f"loss/{name} = " in named for name in broken)


def in_a_process_that_may_write(limit, job):
    """What a job says in a process whose files may only have so many bytes from a moment on; see `full`."""
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
    with os.fdopen(reader) as said:
        return said.read()


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run, whole, tmp_path, monkeypatch):
    every_step = (*JOB, "checkpoint_minutes=0")

    def job(full):
        at_step(monkeypatch, 2, lambda _: full())
        run(*every_step, name="cut")

    said = in_a_process_that_may_write(20_000, job)
    assert "last.ckpt cannot be written" in said
    assert "The one before it is whole" in said
    folder = RunFolder(tmp_path / "cut")
    assert torch.load(folder.last_checkpoint, weights_only=True)["global_step"] == 2
    assert [file.name for file in folder.path.rglob(".*")] == [".lock"]
    _, cut = run(*every_step, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))


def test_memory_that_is_full_is_said_with_what_takes_less(run, tmp_path, monkeypatch):
    at_step(monkeypatch, 2, lambda _: torch.empty(2**50))
    with pytest.raises(UserError, match=r"Out of memory(.|\n)*goes on from it(.|\n)*smaller data.batch_size"):
        run(*LABELS_ONLY)
    assert RunFolder(tmp_path / "run").record().status == "failed"


@pytest.mark.slow
def test_a_run_that_loses_its_cache_ends_in_words_and_goes_on(run, whole, tmp_path, monkeypatch):
    cache, away = tmp_path / "outputs" / "cache", tmp_path / "away"

    def unmount(module):
        cache.rename(away)
        cache.write_text("no folder any more")

    with monkeypatch.context() as patch:
        at_step(patch, 3, unmount)
        with pytest.raises(UserError, match=r"cache.*(cannot be (read or )?written|cannot be read)"):
            run(*JOB, name="cut")
    assert RunFolder(tmp_path / "cut").record().status == "failed"
    cache.unlink()
    away.rename(cache)
    _, cut = run(*JOB, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
