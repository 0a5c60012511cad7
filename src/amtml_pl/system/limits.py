"""Recognise limits that the system sets, and name the command that raises them."""

from __future__ import annotations

import errno
import os
import resource
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread

from amtml_pl.errors import UserError, first_line
from amtml_pl.system.forked_job import ProcessCrashedError, can_fork, run_forked


@dataclass(frozen=True)
class Limit:
    """A resource limit that a shell sets for the processes it starts.

    Attributes:
        option: of the shell's ``ulimit``.
        enough: a value that suffices for every command; None if no value does.
    """

    number: int  # one of resource.RLIMIT_...
    resource: str
    option: str
    unit: str = ""
    enough: int | None = None

    @property
    def value(self) -> int | None:
        """The current limit of this process; None if unlimited."""
        soft, _ = resource.getrlimit(self.number)
        return None if soft == resource.RLIM_INFINITY else soft

    @property
    def sentence(self) -> str:
        """The limit as a sentence after a space; empty if unlimited."""
        if self.value is None:
            return ""
        return f" The limit on {self.resource} is {self.value:,}{self.unit} (ulimit {self.option})."

    @property
    def fix(self) -> str:
        """The shell command that raises the limit."""
        raised = "unlimited" if self.enough is None else max(self.enough, 4 * (self.value or 0))
        return f"ulimit {self.option} {raised}"


FILE_SIZE = Limit(resource.RLIMIT_FSIZE, "the size of a file", "-f", " bytes")
MEMORY = Limit(resource.RLIMIT_AS, "memory", "-v", " bytes")
OPEN_FILES = Limit(resource.RLIMIT_NOFILE, "open files", "-n", enough=4096)
PROCESSES = Limit(resource.RLIMIT_NPROC, "processes and threads of a user", "-u", enough=4096)

# EAGAIN comes from fork.
BY_ERRNO = {errno.EFBIG: FILE_SIZE, errno.EMFILE: OPEN_FILES, errno.EAGAIN: PROCESSES, errno.ENOMEM: MEMORY}
# Parts of the RuntimeErrors and ImportErrors of libraries.
MEMORY_TEXTS = ("can't allocate memory", "annot allocate memory", "failed to map segment", "bad_alloc")
BY_TEXT = {"can't start new thread": PROCESSES} | dict.fromkeys(MEMORY_TEXTS, MEMORY)
# A disk that is full or gone, or a folder without access: not a defect of the program.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)
MISSING_FILE_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
MORE_PROCESSES = "end some of your other processes, or raise the process limit of the container"
OUT_OF_MEMORY = 71  # the status of a process of `in_limited_memory`
NO_TEMPORARY_FOLDER = "No usable temporary directory"  # torch makes a file there when it is imported
OPENBLAS_THREADS = 64  # at most in each of its two pools, numpy's and scipy's


def refused_by_system(error: BaseException, *, any_file: bool = False) -> UserError | None:
    """Return the user's error for a request that the system refused; None for other errors.

    A UserError keeps its message, and gets the command for the limit. With ``any_file``, every error that
    names a file counts.
    """
    cause = ([cause for cause in causes(error) if limit_behind(cause)] or [error])[-1]
    what = error.what if isinstance(error, UserError) else as_sentence(cause)
    if (limit := limit_behind(cause)) is not None:
        return UserError(f"{what}{limit.sentence}", fix=limit.fix)
    names_file = any_file and isinstance(error, OSError) and bool(error.filename)
    number = error.errno if isinstance(error, OSError) else None
    fixes = (
        (exhausted_resource(error) is MEMORY, "free some memory, and repeat the command"),
        (exhausted_resource(error) is PROCESSES, MORE_PROCESSES),
        (NO_TEMPORARY_FOLDER in str(error), "export TMPDIR=FOLDER, on a disk with free space"),
        (names_file and number in MISSING_FILE_ERRORS, "name a file that exists"),
        (
            names_file or number in DISK_ERRORS,
            "free some disk space, or check the permissions of the folder: ls -ld FOLDER",
        ),
    )
    return next((UserError(what, fix=fix) for applies, fix in fixes if applies), None)


def as_sentence(error: BaseException) -> str:
    """Return an exception as one sentence."""
    if isinstance(error, OSError) and NO_TEMPORARY_FOLDER not in str(error):
        return f"{named_file(error) or 'A file'} cannot be read or written: {error.strerror or error}."
    first = first_line(error)
    return f"Out of memory: {first}." if exhausted_resource(error) is MEMORY else f"{first}."


def named_file(error: OSError) -> str | None:
    """Return the file that an error names; some libraries name it as bytes."""
    name = error.filename
    return None if name is None else f"{os.fsdecode(name) if isinstance(name, bytes) else name!s:.300}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes; a UserError's message already names its cause."""
    while error is not None:
        yield error
        alone = error.__suppress_context__ or isinstance(error, UserError)
        error = error.__cause__ or (None if alone else error.__context__)


def limit_behind(error: BaseException) -> Limit | None:
    """Return the limit that caused an exception; None if none of ours did."""
    limit = exhausted_resource(error)
    if limit is PROCESSES and MEMORY.value is not None:  # a thread's stack is memory too
        limit = MEMORY
    if limit is None or limit.value is None:
        return None
    # A command has far fewer processes: another limit was met, such as a container's.
    return None if limit is PROCESSES and limit.value >= (limit.enough or 0) else limit


def exhausted_resource(error: BaseException) -> Limit | None:
    """Return the resource that an exception reports as exhausted; None if none."""
    if isinstance(error, OSError):
        if hasattr(error, "characters_written"):  # a pipe that is full, with the errno of a refused fork
            return None
        return FILE_SIZE if NO_TEMPORARY_FOLDER in str(error) else BY_ERRNO.get(error.errno or 0)
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, SystemError) and MEMORY.value is not None:  # C code that found no memory
        return MEMORY
    if isinstance(error, RuntimeError | ImportError):
        return next((limit for part, limit in BY_TEXT.items() if part in str(error)), None)
    return None


def refuse_few_threads() -> None:
    """Raise a UserError if the numerical libraries could not start their threads.

    They do not report it: OpenBLAS sends the process a SIGINT, OpenMP ends it.
    """
    requested = os.environ.get("OMP_NUM_THREADS", "")
    each = min(int(requested) if requested.isdecimal() else cores(), cores())
    end = Event()
    needed = each + 2 * (min(each, OPENBLAS_THREADS) - 1)
    threads = [Thread(target=end.wait, daemon=True) for _ in range(needed)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        limit = limit_behind(error)
        raise UserError(
            f"The command needs {needed} threads, but cannot start them.{limit.sentence if limit else ''}",
            fix=f"{f'{limit.fix}, or ' if limit else ''}use fewer threads: export OMP_NUM_THREADS=1",
        ) from None  # the limit has been named
    finally:
        end.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_limited_memory(run: Callable[[], int]) -> int:
    """Return a function's exit status; run it in its own process if memory is limited.

    C++ may crash there. The status is 1 after an exception, with its traceback.

    Raises:
        ProcessCrashedError: if the process ended for lack of memory.
    """
    if MEMORY.value is None or not can_fork():
        return run()
    status = run_forked(lambda: caught_status(run))
    if status == OUT_OF_MEMORY:
        raise ProcessCrashedError("its process ran out of memory")
    return status


def caught_status(run: Callable[[], int]) -> int:
    """Return the status of a function, or one for an exception."""
    try:
        return run()
    except Exception as error:
        if MEMORY in map(limit_behind, causes(error)):  # too little even for the message
            return OUT_OF_MEMORY
        traceback.print_exc()  # as Python itself does
        return 1
