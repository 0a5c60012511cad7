"""Non-finite numbers on an accelerator, read some steps later; the CPU stands in for it."""

import math
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from amtml_pl.distill import step_watch
from amtml_pl.distill.non_finite import load_reproduction
from amtml_pl.distill.step import DistillModule
from amtml_pl.distill.step_watch import Position, StepWatch
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from tiny_runs import CE, TINY, assert_bitwise_equal, at_step, broken_from_step_5, ready, weights

JOB = ("experiment=digits_amtml", *TINY, "checkpoint_minutes=null")
LABELS_ONLY = ("experiment=digits", "method=ce", *CE, "doctor=false")


@pytest.fixture
def deferred(monkeypatch):
    """Read the CPU's numbers as seldom as an accelerator's."""
    monkeypatch.setattr(step_watch, "AT_ONCE", ())


def watched(*losses):
    """Return a watch after a step for each loss."""
    watch = StepWatch(torch.device("cpu"))
    for step, loss in enumerate(losses):
        watch.begin(Position(0, step, step), torch.arange(3))
        watch.note_loss(torch.tensor(loss), {"ce": torch.tensor(loss)})
        watch.end()
    return watch


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_the_first_broken_step_is_found_once_it_is_read(broken):
    watch = watched(1.0, 3e38, broken, 2.0)
    assert watch.first_broken().at == Position(0, 2, 2)
    assert watched(1.0, 3e38).first_broken() is None


@pytest.mark.parametrize("fused", [True, False])
def test_no_broken_gradient_and_none_after_it_reaches_a_weight(fused):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, watch = torch.optim.SGD([weight], lr=0.5, fused=fused), watched(1.0)
    moved = []
    for gradient in (1.0, math.nan, 1.0):
        watch.begin(Position(0, 0, 0), torch.arange(3))
        weight.grad = torch.full((3,), gradient)
        watch.protect_weights(optimizer)
        optimizer.step()
        watch.end()
        moved.append(weight.tolist())
    assert moved == [[0.5] * 3] * 3


@pytest.mark.numbers
def test_a_watched_run_trains_the_same_weights(run, moved, deferred):
    _, folder = run(*JOB)
    assert_bitwise_equal(weights(folder), weights(RunFolder(moved)))


@pytest.mark.parametrize(
    ("often", "saved_step"), [("checkpoint_minutes=null", 4), ("checkpoint_minutes=0", 5)]
)
def test_a_broken_step_is_reported_before_a_checkpoint_with_the_weights_it_had(
    run, tmp_path, monkeypatch, deferred, often, saved_step
):
    broken_from_step_5(monkeypatch)
    before = {}
    at_step(
        monkeypatch, 5, lambda module: before.update({n: p.clone() for n, p in module.named_parameters()})
    )
    later = []
    at_step(monkeypatch, 6, later.append)
    expected = r"The gradient is not finite at epoch 1, step 5, batch 1 .*loss/kd.*rows"
    with pytest.raises(UserError, match=expected):
        run(*JOB[:-1], "doctor=false", often)
    assert bool(later) == (saved_step == 4)  # the epoch went on, with the weights it had
    folder = RunFolder(tmp_path / "run")
    assert folder.record().status == "failed"
    saved = torch.load(folder.last_checkpoint, weights_only=True)
    assert saved["global_step"] == saved_step
    assert all(t.isfinite().all() for t in saved["state_dict"].values())
    kept = load_file(folder.path / "not_finite.safetensors")
    assert all(torch.equal(kept[f"state/{name}"], tensor) for name, tensor in before.items())


def test_a_watched_loss_breaks_again_from_the_saved_step(run, configure, tmp_path, deferred):
    huge = (*LABELS_ONLY, "optimizer.lr=1e30")
    with pytest.raises(UserError, match=r"The loss is not finite at epoch 0.*loss/ce = (nan|inf)"):
        run(*huge)
    again = ready(configure(*huge), RunFolder(tmp_path / "again"))
    batch = load_reproduction(tmp_path / "run" / "not_finite.safetensors", again.module)
    assert not all(each.value.isfinite() for each in again.module.break_down(batch).components)


class Readings(TorchDispatchMode):
    """Counts the numbers that Python reads from tensors."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(named or {}))


def counted_at_steps(monkeypatch, count):
    """Return a list that gets the step and a count at the start of every training step of a student."""
    found, step = [], DistillModule.training_step

    def counted(self, batch, batch_idx):
        if "teachers" not in str(self.trainer.default_root_dir):
            found.append((self.current_epoch, batch_idx, count()))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DistillModule, "training_step", counted)
    return found


def test_no_number_is_read_from_one_step_to_the_next(run, monkeypatch, deferred):
    with Readings() as readings:
        found = counted_at_steps(monkeypatch, lambda: readings.count)
        run(*JOB, "logger=[tensorboard]")
    assert len(found) == 8
    for (epoch, _, before), (next_epoch, _, after) in pairwise(found):
        assert before == after or epoch != next_epoch


@pytest.mark.gpu
def test_no_step_waits_for_a_gpu(run, monkeypatch):
    def debug():
        return torch.cuda.get_sync_debug_mode()

    found, step = counted_at_steps(monkeypatch, debug), DistillModule.training_step

    def strict(self, batch, batch_idx):
        inside = 0 < batch_idx < self.trainer.num_training_batches - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DistillModule, "training_step", strict)
    try:
        run(*(word.replace("trainer=cpu", "trainer=gpu") for word in JOB))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert any(mode == 2 for _, _, mode in found)
