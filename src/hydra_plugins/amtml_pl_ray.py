"""Provide a launcher that runs the jobs of a multirun as Ray tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

log = logging.getLogger(__name__)


class RayLauncher(Launcher):
    """Runs jobs as Ray tasks, as many at once as the cores and accelerators allow.

    Args:
        address: of a cluster, ``auto`` for the one that this machine belongs to; None starts one here.
        cpus_per_task: cores of each job; `amtml_pl.training.sweep.jobs` gives it as many threads.
        gpus_per_task: accelerators of each job.
        may_fork: read by `amtml_pl.training.sweep.jobs`.
    """

    def __init__(self, address: str | None, cpus_per_task: int, gpus_per_task: float, may_fork: bool) -> None:
        self.address, self.cpus_per_task, self.gpus_per_task = address, cpus_per_task, gpus_per_task

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what every job needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for all; a crashed process does not end the others."""
        # Not above: Hydra imports this file in every command.
        from amtml_pl.config.reporting import report_mistake
        from amtml_pl.errors import UserError
        from amtml_pl.system.optional_packages import imported

        try:
            ray: Any = imported("ray", extra="ray")
        except UserError as error:  # Hydra would print a traceback
            report_mistake(error)
            raise
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        ray.init(address=self.address, include_dashboard=False, ignore_reinit_error=True)
        task = ray.remote(num_cpus=self.cpus_per_task, num_gpus=self.gpus_per_task, max_retries=0)(run_one)
        context = ray.put((self.hydra_context, self.config, self.task_function, Singleton.get_state()))
        waiting = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            waiting.append(task.remote(context, list(overrides), number))
        returned = []
        for job in waiting:
            try:
                returned.append(ray.get(job))
            except ray.exceptions.RayError as error:
                log.warning("A job has ended without a result: %s", error)
                returned.append(JobReturn(status=JobStatus.COMPLETED, _return_value=float("nan")))
        return returned


def run_one(context: tuple[Any, ...], overrides: list[str], number: int) -> JobReturn:
    """Run one job in a Ray worker."""
    hydra_context, config, task_function, singletons = context
    setup_globals()
    Singleton.set_state(singletons)
    job_config = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = job_config.hydra.job.num = number
    return run_job(
        task_function,
        job_config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=hydra_context,
    )
