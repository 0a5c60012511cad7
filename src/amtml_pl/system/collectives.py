"""Connect the processes of a run, and exchange values between them."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

# How long the others wait while the first process packs data and trains teachers.
SETUP_TIMEOUT = timedelta(days=30)
# How long processes wait in a step for one that is stuck or has disappeared.
STEP_TIMEOUT = timedelta(hours=2)

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Result = TypeVar("Result")


class Rendezvous:
    """The connections of a run's processes besides torch's default group; None with one process."""

    setup_group: dist.ProcessGroup | None = None  # its timeout is SETUP_TIMEOUT
    store: Store | None = None  # of keys and values, shared by all processes


def init_processes() -> None:
    """Connect the processes of a run, unless there is one only or they are connected."""
    if ranks.world_size() == 1 or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    cluster = cluster_environment()
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = cluster.main_address, str(cluster.main_port)
    store, rank, world_size = next(rendezvous("env://", ranks.rank(), ranks.world_size()))
    dist.init_process_group(backend, timeout=STEP_TIMEOUT, store=store, rank=rank, world_size=world_size)
    group = dist.new_group(timeout=SETUP_TIMEOUT, backend="gloo")
    Rendezvous.store, Rendezvous.setup_group = store, cast("dist.ProcessGroup", group)
    atexit.register(end_process_group)
    Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_process_group() -> None:
    """End the process group, if something else has not ended it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def end_with_parent(parent: int) -> None:
    """End this process once its launcher is gone, to free the run folder's lock."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def cluster_environment() -> ClusterEnvironment:
    """Return Lightning's name for the launcher; its own detection mistakes a batch script for tasks."""
    if ranks.world_size() == 1:
        return LightningEnvironment()
    if "WORLD_SIZE" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)  # a requeued job repeats the command, which resumes


def all_gather_object(value: Result) -> list[Result]:
    """Return the values of all processes, in rank order."""
    if ranks.world_size() == 1:
        return [value]
    values: list[Any] = [None] * ranks.world_size()
    dist.all_gather_object(values, value, group=Rendezvous.setup_group)
    return values


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Run the body on rank 0, then on the others, or raise `AnotherFailed` there."""
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
    """Return the result of ``decide`` in the first process; elsewhere raise `AnotherFailed` if it raised."""
    decision: list[Result] = []
    with rank_zero_first():
        if ranks.is_rank_zero():
            decision.append(decide())
    result: Result = broadcast_object(decision[0] if decision else None)
    return result


def broadcast_object(value: Any) -> Any:
    """Return the first process's value in every process."""
    if ranks.world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=Rendezvous.setup_group, device=torch.device("cpu"))
    return values[0]


def any_rank(*flags: bool, device: torch.device) -> list[bool]:
    """Return which of the flags are set in at least one process."""
    if ranks.world_size() == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.uint8, device=device)
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def is_first_to_report(message: str) -> bool:
    """Return True if no other process of the run has reported this message yet."""
    if Rendezvous.store is None:
        return True
    try:
        return int(Rendezvous.store.add(f"reported: {message}", 1)) == 1
    except RuntimeError:  # the process that kept the store has ended
        return True


@contextmanager
def lost_connections_reported() -> Iterator[None]:
    """Turn a lost connection into `AnotherFailed`, since the other process reports the cause."""
    try:
        yield
    except RuntimeError as error:
        if ranks.world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise AnotherFailed("Another process of the run has ended and reports the cause.") from error
        raise
