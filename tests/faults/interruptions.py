"""Ways to interrupt a run, and instants at which it is interrupted."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch

from amtml_pl.errors import Preempted
from amtml_pl.system.limits import causes
from amtml_pl.system.signals import raise_on_sigterm

KINDS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT": (signal.SIGINT,),
    "two SIGINTs": (signal.SIGINT, signal.SIGINT),
}
INTERRUPTED, COMPLETED, FAILED = 10, 0, 1


def in_a_process(job: Callable[[], object]) -> int:
    """Start a job in a forked process and return its process id."""
    child = os.fork()  # torch has one thread here, see conftest.py
    if child == 0:
        status = FAILED
        try:
            status = status_of(job)
        except KeyboardInterrupt:  # a second one, while the first was handled
            status = INTERRUPTED
        finally:
            os._exit(status)
    return child


def status_of(job: Callable[[], object]) -> int:
    """Run a job as a command does, and return its status."""
    try:
        raise_on_sigterm()
        job()
    except BaseException as error:
        if any(isinstance(cause, KeyboardInterrupt | Preempted) for cause in causes(error)):
            return INTERRUPTED
        traceback.print_exc()
        return FAILED
    return COMPLETED


def ended(child: int) -> str:
    """Return the end of a forked process."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "interrupted" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
    return {INTERRUPTED: "interrupted", COMPLETED: "completed"}.get(os.WEXITSTATUS(status), "failed")


def after(child: int, seconds: float, signals: tuple[int, ...], between: float) -> None:
    """Send signals to a process after some seconds."""
    for number, wait in zip(signals, (seconds, between), strict=False):
        time.sleep(wait)
        os.kill(child, number)  # not waited for yet, so that its id is its own


# ---- instants: `arrange(monkeypatch, happens)` lets something happen there, once


def when_written(name, nth=1, *, step=None):
    """Return an instant before a file gets its name: the nth of that name, or a step's checkpoint."""

    def arrange(monkeypatch, happens):
        seen = []

        def around(original):
            def moved(path, target):
                if Path(target).match(name) and step in (None, step_of(path)):
                    seen.append(target)
                    if len(seen) == nth:
                        happens(path)
                return original(path, target)

            return moved

        monkeypatch.setattr(Path, "replace", around(Path.replace))
        monkeypatch.setattr(Path, "rename", around(Path.rename))

    return arrange


def step_of(checkpoint):
    if checkpoint.suffix == ".ckpt":
        return torch.load(checkpoint, weights_only=True)["global_step"]
    return None


def when_called(hook, step, *, of_the_student=True):
    """Return an instant when Lightning calls a hook after some steps of the student or a teacher."""

    def arrange(monkeypatch, happens):
        begin = pl.Trainer.__init__
        seen = []

        def called(self, trainer, *_):
            is_student = "teachers" not in Path(trainer.default_root_dir).parts
            if not seen and is_student == of_the_student and trainer.global_step == step:
                seen.append(step)
                happens(None)

        def begun(self, *arguments, callbacks=(), **named):  # without any, the check before a run makes one
            watch = type("Watch", (pl.Callback,), {hook: called})()
            begin(self, *arguments, callbacks=[*callbacks, watch], **named)

        assert hasattr(pl.Callback, hook)
        monkeypatch.setattr(pl.Trainer, "__init__", begun)

    return arrange
