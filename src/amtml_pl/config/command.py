"""What every command of the project does alike: its console, its exit status, its silence."""

from __future__ import annotations

import locale
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from rich.markup import escape

from amtml_pl.config.command_keys import help_of
from amtml_pl.config.override_errors import command_line_mistakes, reason
from amtml_pl.config.overrides import hydra_literal
from amtml_pl.config.paths import config_directory
from amtml_pl.errors import AnotherFailed, Preempted, UserError
from amtml_pl.system.console import error_console, quieten
from amtml_pl.system.forked_job import ProcessCrashedError
from amtml_pl.system.limits import MEMORY, causes, in_limited_memory, refuse_few_threads, refused_by_system
from amtml_pl.system.ranks import leads, rank, world_size
from amtml_pl.system.signals import obey_at_once, prepare_to_end

# The status that tells a scheduler to try again later: EX_TEMPFAIL of sysexits.h.
PREEMPTED = 75
# The first process of a run that ends ends the others; it should be the one that says why.
SECONDS_TO_SAY_WHY = 5.0


@dataclass
class Progress:
    """How far this process has come.

    Attributes:
        begun: whether a job has begun, so that Hydra's own status 1 is no mistake in the command any more.
        mistakes: the messages of the mistakes that have ended jobs of a multirun.
    """

    begun: bool = False
    mistakes: list[str] = field(default_factory=list)


progress = Progress()


def start(run: Callable[[], object], *, multirun: bool = True) -> None:
    """Runs a Hydra main function. Exit status: 2 for a mistake of the user's, else what the run left.

    Hydra ends with 1 for a mistake in the command line, before any job has begun.

    Args:
        run: the function.
        multirun: whether the command can be a multirun, of which Hydra keeps a folder.
    """
    begin_in_utf8()
    quieten()
    OmegaConf.register_new_resolver("amtml.help", help_of, replace=True)
    obey_at_once()
    progress.begun = False
    progress.mistakes.clear()
    swept = get_args_parser().parse_args().multirun
    if swept and not multirun:
        report_typed(["--multirun: expected one command for each, e.g. for run in A B; do ...; done"])
        sys.exit(2)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it hands its exceptions on, which are said in other words here
    try:
        # Each job of a sweep has a process already.
        status = status_of(run) if swept else in_limited_memory(lambda: status_of(run))
    except ProcessCrashedError as crash:
        report_mistake(UserError(f"The command failed: {crash}.{MEMORY.sentence}", fix=MEMORY.fix))
        status = 2
    if status:
        prepare_to_end()
        sys.exit(status)


def status_of(run: Callable[[], object]) -> int:
    """Run a Hydra main function and return the exit status of the command.

    A signal can come while a module is imported or a configuration is composed. What was interrupted
    may raise another error from it.
    """
    try:
        run()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return 2 if status == 1 and not progress.begun else status
    except BaseException as error:
        stopped = next((c for c in causes(error) if isinstance(c, KeyboardInterrupt | Preempted)), None)
        if stopped is not None:
            return 130 if isinstance(stopped, KeyboardInterrupt) else PREEMPTED
        if progress.begun or not isinstance(error, Exception):
            raise
        refuse_composition(error)
        return 2
    return 2 if progress.mistakes else 0


def refuse_composition(error: Exception) -> None:
    """Print what is wrong with the command line, or with a file that is composed."""
    if "debug=true" in sys.argv:
        traceback.print_exception(error)
    mistakes = []
    with suppress(Exception):  # a file that cannot be read; the first exception says so
        mistakes = typed_mistakes()
    report_typed(mistakes or [reason(error)])


def begin_in_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where the locale cannot name every file.

    TensorBoard and others write names as UTF-8 in every locale. The terminal keeps its encoding.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        own = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{locale.getencoding()}:replace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **own})  # noqa: S606


def typed_mistakes() -> list[str]:
    """What is wrong with this process's command line; nothing where Hydra's exception is about more."""
    arguments = get_args_parser().parse_args()
    if arguments.config_name is not None:
        return []
    own = [] if arguments.config_dir is None else [Path(arguments.config_dir).resolve()]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        name = f"{Path(sys.argv[0]).stem.removeprefix('amtml-')}"
        return command_line_mistakes(
            [*(f"hydra.searchpath=[file://{folder}]" for folder in own), *arguments.overrides],
            name if (config_directory() / f"{name}.yaml").is_file() else "train",
            swept=arguments.multirun,
        )


def report_typed(mistakes: list[str]) -> None:
    """Prints what is wrong with the command line; of several processes of a run the first one does."""
    if not leads():
        return
    count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
    listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
    error_console.print(f"[bold red]error:[/] {escape(f'The command line has {count}:')}\n{escape(listed)}")


@contextmanager
def reporting(
    module: str, *, debug: bool, folder: Path | None = None, resumes: bool = True
) -> Iterator[None]:
    """Ends a command as every command ends: a mistake with one message, Ctrl-C with how to go on.

    Args:
        module: of the command, such as ``amtml_pl.train``.
        debug: whether a mistake shows its traceback.
        resumes: whether the command goes on where it was stopped, and does not begin again.
        folder: what Hydra has made for the command, removed where a mistake has left nothing in it.
    """
    try:
        refuse_name_without_text(folder)
        refuse_few_threads()
        yield
    except AnotherFailed:
        let_another_say_why()
        sys.exit(2)
    except Exception as error:
        mistake = refused_by_system(error, any_file=not resumes)
        if mistake is None and isinstance(error, UserError):
            mistake = error
        if mistake is None:  # a defect, whose traceback is wanted
            raise
        if debug:
            traceback.print_exc()
        if folder is not None:
            with suppress(OSError):  # an empty folder harms less than a second message
                remove_untouched(folder)
        report_mistake(mistake)
    except KeyboardInterrupt:
        prepare_to_end()
        say_how_to_go_on("Interrupted", module, resumes=resumes)
        sys.exit(130)
    except Preempted:
        prepare_to_end()
        say_how_to_go_on("Preempted", module, resumes=resumes)
        sys.exit(PREEMPTED)


def refuse_name_without_text(folder: Path | None) -> None:
    """Raise a UserError for a run folder whose name is not UTF-8: TensorBoard cannot write there.

    Raises:
        UserError: naming the folder.
    """
    try:
        str(folder or "").encode()
    except UnicodeEncodeError:
        name = os.fsencode(str(folder)).decode(errors="backslashreplace")
        raise UserError(
            f"The run folder {name} has a name that is not UTF-8 text.",
            fix="rename the folder, or choose another one: paths.outputs=FOLDER",
        ) from None


def say_how_to_go_on(what: str, module: str, *, resumes: bool) -> None:
    """What to type after a command was stopped; of several processes of a run the first one says it."""
    if leads():
        how = "This continues where it stopped" if resumes else "This begins again"
        error_console.print(f"{what}. {how}:\n  {escape(typed(module))}")


def typed(module: str) -> str:
    """The command line of this process."""
    return shlex.join(["python", "-m", module, *typed_words(module)])


def typed_words(module: str) -> list[str]:
    """What composes this process's configuration again, be it one of a sweep's."""
    told = HydraConfig.get()
    own = [word for folder in own_folders(told) for word in ("--config-dir", folder)]
    if told.job.config_name not in (None, module.rpartition(".")[2]):
        own += ["--config-name", told.job.config_name]
    words: Any = OmegaConf.to_container(told.overrides.task)  # as typed: not resolved
    hydra_s: Any = OmegaConf.to_container(told.overrides.hydra)
    words += [word for word in hydra_s if word.startswith("hydra.searchpath=")]
    # With ++, `amtml_pl.train` itself has added it; of a sweep's jobs, each has a folder of its own.
    if told.mode == RunMode.RUN and any(word.startswith("hydra.run.dir=") for word in hydra_s):
        words.append(f"hydra.run.dir={hydra_literal(told.runtime.output_dir)}")
    return [*own, *words]


def own_folders(hydra: Any) -> list[str]:  # noqa: ANN401 - a node, or the dataclass that types it
    """Where the user's own configuration files lie, as ``--config-dir`` has said it; absolute."""
    return [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]


def report_mistake(error: UserError) -> None:
    """Prints the one message that a user needs. A sweep goes on with its next job; all else ends here."""
    if is_mine_to_say(str(error)):
        whose = f"rank {rank()}: " if world_size() > 1 else ""
        error_console.print(f"[bold red]error:[/] {whose}{escape(str(error))}")
    else:
        let_another_say_why()
    progress.mistakes.append(str(error))
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        sys.exit(2)


def has_met() -> bool:
    """Whether this process is connected with the others of its run."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def let_another_say_why() -> None:
    """Waits for another process of the run to say why it ends, and so to end this one."""
    with suppress(Preempted):
        time.sleep(SECONDS_TO_SAY_WHY)


def is_mine_to_say(message: str) -> bool:
    """Whether this is the process of the run that says something which others may have to say too."""
    if not has_met():  # until then all of them make the same mistake
        return leads()
    # only here: it needs torch, which a mistake may precede
    from amtml_pl.system.collectives import is_first_to_say

    return is_first_to_say(message)


def remove_untouched(folder: Path) -> None:
    """Removes the run folder that Hydra made, where the run ended before it wrote anything.

    Of the folders above it, those that are empty then: ``runs/<experiment>`` and ``runs``.
    """
    if not folder.is_dir() or any(file.name != ".lock" for file in folder.iterdir()):
        return
    (folder / ".lock").unlink(missing_ok=True)
    folder.rmdir()
    if folder.parent.parent.name == "runs":
        with suppress(OSError):  # until one that is not empty
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
