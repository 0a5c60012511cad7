"""Make a function a command: compose its job with Hydra, and exit like every command."""

from __future__ import annotations

import functools
import locale
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.build import unresolved
from amtml_pl.config.checks import check_command
from amtml_pl.config.command_line import options_and_overrides, typed_mistakes, typed_name
from amtml_pl.config.ignored import leave_out_teachers
from amtml_pl.config.key import Key
from amtml_pl.config.override_errors import reason
from amtml_pl.config.overrides import STARTS_AGAIN, hydra_literal, key_of
from amtml_pl.config.paths import config_directory
from amtml_pl.config.reporting import (
    INTERRUPTED,
    PREEMPTED,
    command_state,
    report_mistake,
    report_typed,
    reporting,
    status_of_exit,
)  # fmt: skip
from amtml_pl.config.teacher_recipe import chosen
from amtml_pl.errors import Preempted, UserError
from amtml_pl.system.console import quieten
from amtml_pl.system.forked_job import ProcessCrashedError
from amtml_pl.system.limits import MEMORY, causes, in_limited_memory
from amtml_pl.system.ranks import world_size
from amtml_pl.system.signals import prepare_to_end, raise_on_sigterm

CLOSED_PIPE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class CommandJob:
    """One job of a command: its composed configuration and its typed words.

    Attributes:
        command: such as ``train``.
        config: the composed configuration, without Hydra's own node.
        ignored: names of teachers that the command selects, but the method does not have.
    """

    command: str
    config: DictConfig
    ignored: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Folder that Hydra has created for the job."""
        return Path(HydraConfig.get().runtime.output_dir)

    @property
    def experiment(self) -> str | None:
        """Name of the experiment; None if the command chose none."""
        return chosen("experiment")

    @property
    def overrides(self) -> list[str]:
        """Overrides as typed, interpolations included."""
        words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
        return list(words)

    def values(self, *, without: str = "") -> dict[str, Any]:
        """Return the plain values of all keys but one."""
        return {key: self.value(key) for key in map(str, self.config) if key != without}

    def value(self, key: str) -> Any:
        """Return the plain value of a key; raise a UserError for an unresolved one."""
        try:
            value = self.config[key]
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            raise unresolved(error, key) from error

    def options(self, keys: Mapping[str, Key], *, without: str = "") -> dict[str, Any]:
        """Return the values of all keys but one, checked by their declarations."""
        check_command(values := self.values(without=without), keys)
        return values

    def take(self, keys: Mapping[str, Key]) -> dict[str, Any]:
        """Return the checked values of some keys, and remove them; the rest describes a run."""
        check_command(values := {key: self.value(key) for key in keys if key in self.config}, keys)
        with open_dict(self.config):
            for key in keys:
                del self.config[key]
        return values

    def reporting(self, *, own_folder: bool = False, resumes: bool = False) -> AbstractContextManager[None]:
        """Return `reporting` for this job, with its folder if it has one."""
        shown, folder = self.config.get("traceback", False), self.folder if own_folder else None
        return reporting(self.typed, show_traceback=shown, folder=folder, resumes=resumes)

    def typed(self) -> str:
        """Return the command line that continues this job alone, without a sweep."""
        left_out = ("sweep", *STARTS_AGAIN)  # a sweep would start all jobs
        own = [word for word in self.words() if key_of(word) not in left_out]
        return shlex.join(["python", "-m", f"amtml_pl.{self.command}", *own])

    def words(self) -> list[str]:
        """Return the arguments that compose this job again."""
        about = HydraConfig.get()
        own = [word for folder in user_config_folders(about) for word in ("--config-dir", folder)]
        if about.job.config_name not in (None, self.command):
            own += ["--config-name", about.job.config_name]
        of_hydra: Any = OmegaConf.to_container(about.overrides.hydra)
        words = [*self.overrides, *(word for word in of_hydra if word.startswith("hydra.searchpath="))]
        # With ++, `words_without_sweep` has added it; each job of a sweep has its own folder.
        if about.mode == RunMode.RUN and any(word.startswith("hydra.run.dir=") for word in of_hydra):
            words.append(f"hydra.run.dir={hydra_literal(str(self.folder))}")
        return [*own, *words]

    def words_without_sweep(self) -> list[str]:
        """Return the arguments that compose this job in another process, without its sweep."""
        of_hydra: Any = OmegaConf.to_container(HydraConfig.get().overrides.hydra)
        callbacks = [word for word in of_hydra if word.lstrip("+").startswith("hydra.callbacks")]
        directory = hydra_literal(str(self.folder))
        return [*self.words(), *callbacks, "hydra.mode=RUN", f"++hydra.run.dir={directory}"]


def command(
    name: str, *, multirun: bool = True
) -> Callable[[Callable[[CommandJob], Any]], Callable[[], None]]:
    """Return a decorator that makes a function of a job a command.

    The function imports torch after its checks of the configuration, as that takes seconds.

    Args:
        name: of the command and of its file in ``conf/``.
        multirun: True if the command can be a multirun, whose folder Hydra keeps.
    """

    def decorate(work: Callable[[CommandJob], Any]) -> Callable[[], None]:
        @functools.wraps(work)
        def main() -> None:
            start(composed_by_hydra(name, work), multirun=multirun)

        return main

    return decorate


def composed_by_hydra(name: str, work: Callable[[CommandJob], Any]) -> Callable[[], None]:
    """Return a Hydra main function, which composes the job of this process's arguments."""

    @hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=name)
    @functools.wraps(work)
    def run(config: DictConfig) -> Any:
        command_state.begun, command_state.sweeps = True, HydraConfig.get().mode == RunMode.MULTIRUN
        return work(CommandJob(name, config, leave_out_teachers(config, chosen("method"))))

    def composed() -> None:
        options, overrides = options_and_overrides(sys.argv[1:])
        sys.argv[1:] = [*overrides, *options]  # Hydra takes no override between options
        run()

    return composed


def start(run: Callable[[], object], *, multirun: bool = True) -> None:
    """Run a Hydra main function, and exit with the status of the command."""
    begin_in_utf8()
    quieten()
    raise_on_sigterm()
    command_state.begin()
    swept = get_args_parser().parse_known_intermixed_args()[0].multirun
    if swept and not multirun:
        report_typed(["--multirun is not supported by this command; run it once for each run folder"])
        sys.exit(2)
    if swept and world_size() > 1:
        fix = shlex.join(["python", "-m", f"amtml_pl.{typed_name()}", *sys.argv[1:]])
        report_typed(
            [f"-m: a sweep starts the processes of its runs (got {world_size()}, expected 1). Fix: {fix}"]
        )
        sys.exit(2)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # pass its exceptions on, to report them here
    try:
        # Each job of a sweep has a process already.
        status = status_of(run) if swept else in_limited_memory(lambda: status_of(run))
    except ProcessCrashedError as crash:
        report_mistake(UserError(f"The command failed: {crash}.{MEMORY.sentence}", fix=MEMORY.fix))
        status = 2
    if status in (INTERRUPTED, PREEMPTED):
        prepare_to_end()
    if status:
        sys.exit(status)


def status_of(run: Callable[[], object]) -> int:
    """Run a Hydra main function and return the exit status of the command."""
    try:
        run()
    except SystemExit as stop:
        status = status_of_exit(stop)
        return 2 if status == 1 and not command_state.begun else status
    except BaseException as error:
        for cause in causes(error):  # an import or a composition turns a signal into another error
            if isinstance(cause, KeyboardInterrupt | Preempted):
                return INTERRUPTED if isinstance(cause, KeyboardInterrupt) else PREEMPTED
        if command_state.begun or not isinstance(error, Exception):
            raise
        if isinstance(error, BrokenPipeError):
            return end_of_reader()
        refuse_composition(error)
        return 2
    finally:
        command_state.sweeps = False
    return 2 if command_state.mistakes else 0


def refuse_composition(error: Exception) -> None:
    """Print what is wrong with the command line or with a composed file."""
    if "traceback=true" in sys.argv:
        traceback.print_exception(error)
    mistakes: list[str] = []
    with suppress(Exception):  # an unreadable file, which the first exception reports
        mistakes = typed_mistakes()
    report_typed(mistakes or [reason(error)])


def end_of_reader() -> int:
    """Discard the rest of the output, as after ``--help | head``; return the exit status."""
    with Path(os.devnull).open("w") as devnull:
        os.dup2(devnull.fileno(), sys.stdout.fileno())
    return CLOSED_PIPE


def begin_in_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale cannot name every file that TensorBoard writes."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        own = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{locale.getencoding()}:replace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **own})  # noqa: S606


def user_config_folders(hydra: Any) -> list[str]:
    """Return the absolute folders of the user's configuration files, from ``--config-dir``."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
