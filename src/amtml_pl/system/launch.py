"""Start the processes of a run on this machine, in one group for each run."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Sequence
from threading import Thread

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from amtml_pl.errors import Preempted, UserError
from amtml_pl.system import ranks
from amtml_pl.system.collectives import end_with_parent
from amtml_pl.system.signals import GRACE_SECONDS, restoring_handlers


def launch_ranks(command: Sequence[str], processes: int) -> None:
    """Run a Python command in several connected processes; if one dies, all end.

    Args:
        command: arguments of the interpreter, such as ``["-m", "amtml_pl.train", …]``.
        processes: 2 or more.

    Raises:
        SystemExit: with the status of the process that ended first, if not 0; that process has reported why.
        KeyboardInterrupt: after Ctrl-C.
        Preempted: after SIGTERM.
    """
    # Its log repeats the report of a process.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    before = os.environ.get("OMP_NUM_THREADS")  # inherited by the processes; else each takes all cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    launch = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.5, run_id=str(os.getpid()),
    )  # fmt: skip
    try:
        with restoring_handlers(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            elastic_launch(launch, sys.executable)(*command)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            reason = " (possibly out of memory)" if name == "SIGKILL" else ""
            sys.stderr.write(
                f"Process {rank} of the run was ended by {name}{reason}. The other processes were stopped. "
                "Repeat the command to resume from the last checkpoint.\n"
            )
        sys.exit(max(first.exitcode, 1))
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Preempted from None
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS")


def run_detached(command: Sequence[str]) -> None:
    """Run a Python command outside this run's group; exit with its status if not 0."""
    words = [sys.executable, "-m", "amtml_pl.system.launch", str(os.getpid()), *command]
    process = subprocess.Popen(words, env=ranks.single_process_environment())  # noqa: S603
    try:
        status = process.wait()
    except BaseException:  # forward the request to stop: the process saves its state
        process.terminate()
        process.wait(timeout=GRACE_SECONDS + 5)
        raise
    if status != 0:
        sys.exit(status if status > 0 else 1)


def processes_wanted(devices: int | str, nodes: int, accelerator: str) -> int:
    """Return how many processes to start for a run; 1 if they are running.

    Raises:
        UserError: if processes and devices differ in number, or another machine has no processes.
    """
    gpus = torch.cuda.device_count() if accelerator != "cpu" and torch.cuda.is_available() else 0
    each = (gpus or 1) if devices == "auto" else int(devices)
    if gpus and each > gpus:
        raise UserError(
            f"trainer.devices exceeds the GPUs of this machine (got {devices}, expected at most {gpus}).",
            fix=f"trainer.devices={gpus}",
        )
    started, here, wanted = ranks.world_size(), ranks.local_world_size(), each * nodes
    if started == wanted:
        return 1
    if started > 1:
        raise UserError(
            f"The number of processes does not fit trainer.devices={devices} and trainer.num_nodes={nodes} "
            f"(got {started}, {here} of them on this machine, expected {wanted}).",
            fix=f"trainer.devices={here} trainer.num_nodes={started // max(here, 1)}",
        )
    if nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes} needs processes on every machine (got 1 process, expected {wanted}).",
            fix=f"run on each machine: torchrun --nnodes {nodes} --nproc-per-node {each} --rdzv-backend c10d "
            "--rdzv-endpoint HOST:PORT -m amtml_pl.train OVERRIDES, or use srun with trainer=slurm",
        )
    return wanted


def run_until_parent_ends() -> None:
    """Run the command of this process's arguments, and end when the named process ends."""
    parent, *sys.argv = sys.argv[1:]
    Thread(target=end_with_parent, args=(int(parent),), daemon=True).start()
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    run_until_parent_ends()
