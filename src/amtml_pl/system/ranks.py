"""Which of the processes of a run this one is, as torchrun or SLURM tell it; nothing here needs torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# What torchrun tells the processes that it starts; a process without these is on its own.
TORCHRUN_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_ERROR_FILE",
)  # fmt: skip

SAME_ON_EVERY_MACHINE = re.compile(r"(\d+)(?:\(x\d+\))?")  # as SLURM writes it: 8, or 8(x2) on two machines


def rank() -> int:
    """This process's place among those of the run, from 0."""
    return number_from("RANK", "SLURM_PROCID", otherwise=0)


def local_rank() -> int:
    """Its place among those on this machine, from 0."""
    return number_from("LOCAL_RANK", "SLURM_LOCALID", otherwise=0)


def world_size() -> int:
    """How many processes the run has; 1 where nobody has started several."""
    return number_from("WORLD_SIZE", "SLURM_NTASKS", otherwise=1)


def local_world_size() -> int:
    """How many of them are on this machine."""
    tasks = SAME_ON_EVERY_MACHINE.fullmatch(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return number_from("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", otherwise=int(tasks[1]) if tasks else 1)


def is_rank_zero() -> bool:
    """Whether this process speaks, and writes the run's files."""
    return rank() == 0


def number_from(torchrun: str, slurm: str, *, otherwise: int) -> int:
    """A number that the launcher gave; SLURM's counts only inside of ``srun``, not in the batch script."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get(torchrun, otherwise))
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get(slurm, otherwise))
    return otherwise


def environment_alone() -> Mapping[str, str]:
    """The environment without what would make a new process one of this run's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in TORCHRUN_VARIABLES and not name.startswith(("SLURM_", "PMI_", "PMIX_"))
    }
