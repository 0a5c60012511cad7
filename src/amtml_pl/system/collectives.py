"""What the processes of a run do together: meet, wait for the first of them, put a batch together."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.rendezvous import rendezvous

from amtml_pl.errors import AnotherFailed
from amtml_pl.system import ranks

# Others wait so long while the first process packs data and has teachers trained...
SETUP_TIMEOUT = timedelta(days=30)
# ... and so long in a step, of which one of them never takes its part, stuck or gone without a sign.
STEP_TIMEOUT = timedelta(hours=2)

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Result = TypeVar("Result")


@dataclass
class Rendezvous:
    """What connects the processes of a run besides torch's default group; None in a run of one.

    Attributes:
        patient: the group in which they wait for the first of them.
        store: what all of them read and write.
    """

    patient: dist.ProcessGroup | None = None
    store: Store | None = None


rendezvous_state = Rendezvous()


def init_processes() -> None:
    """Connects the processes of a run; does nothing for a run of one, or where they have met."""
    if ranks.world_size() == 1 or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    cluster = cluster_environment()
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = cluster.main_address, str(cluster.main_port)
    rendezvous_state.store, rank, world_size = next(rendezvous("env://", ranks.rank(), ranks.world_size()))
    dist.init_process_group(
        backend, timeout=STEP_TIMEOUT, store=rendezvous_state.store, rank=rank, world_size=world_size
    )
    patient = dist.new_group(timeout=SETUP_TIMEOUT, backend="gloo")
    rendezvous_state.patient = cast("dist.ProcessGroup", patient)  # every process is of it
    atexit.register(destroy_processes)
    Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """Ends this process once its launcher is gone, killed perhaps: the run's folder must not stay taken."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def cluster_environment() -> ClusterEnvironment:
    """Who has started this process, for Lightning, whose own guess takes a batch script for its tasks."""
    if ranks.world_size() == 1:
        return LightningEnvironment()
    if "WORLD_SIZE" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)  # a requeued job repeats the command, which goes on


def destroy_processes() -> None:
    """Disconnects them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_gather_object(value: Result) -> list[Result]:
    """The values of all processes, in order."""
    if ranks.world_size() == 1:
        return [value]
    values: list[Any] = [None] * ranks.world_size()
    dist.all_gather_object(values, value, group=rendezvous_state.patient)
    return values


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """What is inside happens in the first process, then, once it has succeeded, in the others.

    Raises:
        AnotherFailed: in the others, if it has not.
    """
    if ranks.world_size() == 1:
        yield
    elif ranks.is_rank_zero():
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            broadcast_object(succeeded)
    else:
        if not broadcast_object(None):
            raise AnotherFailed
        yield


def run_on_rank_zero(decide: Callable[[], Result]) -> Result:
    """What ``decide`` gives in the first process, in every one of them.

    Raises:
        AnotherFailed: in the others, if it has raised.
    """
    decision: list[Result] = []
    with rank_zero_first():
        if ranks.is_rank_zero():
            decision.append(decide())
    result: Result = broadcast_object(decision[0] if decision else None)
    return result


def broadcast_object(value: Any) -> Any:
    """The first process's value, in every one of them."""
    if ranks.world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=rendezvous_state.patient, device=torch.device("cpu"))
    return values[0]


def any_rank(*flags: bool, device: torch.device) -> list[bool]:
    """Which of the flags are up in at least one process."""
    if ranks.world_size() == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.uint8, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def is_first_to_say(message: str) -> bool:
    """Whether no other process of the run has said so, when all of them come to the same end."""
    if rendezvous_state.store is None:
        return True
    try:
        return int(rendezvous_state.store.add(f"said: {message}", 1)) == 1
    except RuntimeError:  # whoever kept the store has gone
        return True


@contextmanager
def lost_connections_reported() -> Iterator[None]:
    """What the end of a process does to the others is not the reason why a run has ended.

    Raises:
        AnotherFailed: for a lost connection.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise AnotherFailed("Another process of the run has ended; it says why.") from error
        raise
