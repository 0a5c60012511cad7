"""This process's place in a run, from torchrun's or SLURM's variables; imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Set by torchrun for the processes that it starts.
TORCHRUN_VARIABLES = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE",
    "TORCHELASTIC_ERROR_FILE",
)  # fmt: skip

SAME_ON_EVERY_MACHINE = re.compile(r"(\d+)(?:\(x\d+\))?")  # as SLURM writes it: 8, or 8(x2) on two machines


def rank() -> int:
    """Return this process's place among all processes of the run, from 0."""
    return number_from("RANK", "SLURM_PROCID", otherwise=0)


def local_rank() -> int:
    """Return this process's place among the run's processes on this machine, from 0."""
    return number_from("LOCAL_RANK", "SLURM_LOCALID", otherwise=0)


def world_size() -> int:
    """Return how many processes the run has; 1 if no launcher started several."""
    return number_from("WORLD_SIZE", "SLURM_NTASKS", otherwise=1)


def local_world_size() -> int:
    """Return how many processes of the run are on this machine."""
    tasks = SAME_ON_EVERY_MACHINE.fullmatch(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    return number_from("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", otherwise=int(tasks[1]) if tasks else 1)


def is_rank_zero() -> bool:
    """Return True if this is the process that prints and writes the run's files."""
    return rank() == 0


def number_from(torchrun: str, slurm: str, *, otherwise: int) -> int:
    """Return a number set by the launcher; SLURM's count only inside ``srun``."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get(torchrun, otherwise))
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get(slurm, otherwise))
    return otherwise


def single_process_environment() -> Mapping[str, str]:
    """Return the environment without the variables that make a process part of a run."""
    prefixes = ("SLURM_", "PMI_", "PMIX_")
    names = [n for n in os.environ if n not in TORCHRUN_VARIABLES and not n.startswith(prefixes)]
    return {name: os.environ[name] for name in names}
