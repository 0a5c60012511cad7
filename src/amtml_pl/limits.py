"""Recognise what the system refuses a process, and name the command that allows it."""

from __future__ import annotations

import errno
import os
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread

from amtml_pl.errors import UserError
from amtml_pl.own_process import ProcessCrashedError, can_have_own_process, in_own_process
from amtml_pl.stopping import prepare_to_end


@dataclass(frozen=True)
class Limit:
    """A limit that a shell sets for what it starts.

    Attributes:
        number: of the resource.
        what: it bounds.
        option: of the shell's ``ulimit``.
        unit: that the system counts in.
        enough: a value that suffices for every command.
    """

    number: int
    what: str
    option: str
    unit: str = ""
    enough: str = "unlimited"

    @property
    def value(self) -> int | None:
        """The most that this process may have; None where there is no limit."""
        soft, _ = resource.getrlimit(self.number)
        return None if soft == resource.RLIM_INFINITY else soft

    @property
    def sentence(self) -> str:
        """What the limit is, after a space; nothing where there is none."""
        if self.value is None:
            return ""
        return f" The limit on {self.what} is {self.value:,}{self.unit} (ulimit {self.option})."

    @property
    def fix(self) -> str:
        """What raises it."""
        return f"ulimit {self.option} {self.enough}, and repeat the command"


FILE_SIZE = Limit(resource.RLIMIT_FSIZE, "the size of a file", "-f", " bytes")
MEMORY = Limit(resource.RLIMIT_AS, "memory", "-v", " bytes")
OPEN_FILES = Limit(resource.RLIMIT_NOFILE, "open files", "-n", enough="4096")
PROCESSES = Limit(resource.RLIMIT_NPROC, "processes and threads of a user", "-u", enough="4096")

BY_ERRNO = {
    errno.EFBIG: FILE_SIZE,
    errno.EMFILE: OPEN_FILES,
    errno.EAGAIN: PROCESSES,  # of fork
    errno.ENOMEM: MEMORY,
}
# What libraries raise as RuntimeError or ImportError, by a part of its text.
BY_TEXT = {
    "can't start new thread": PROCESSES,
    "can't allocate memory": MEMORY,
    "annot allocate memory": MEMORY,
    "failed to map segment": MEMORY,
    "bad_alloc": MEMORY,
}
# What says that the machine has failed, and not the program: a disk that is full, gone or closed to the user.
OF_THE_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}
)
OUT_OF_MEMORY = 71  # what a process of `in_limited_memory` returns
NO_TEMPORARY_FOLDER = "No usable temporary directory"  # torch makes a file there when it is imported
POOLS = 3  # numpy's, scipy's and torch's: each has a thread per core


def refused_by_system(error: BaseException, *, any_file: bool = False) -> UserError | None:
    """Return the message for what the system has refused; None for any other error.

    A message that says already what could not be done keeps its words, and gets the limit's command.

    Args:
        error: what was raised.
        any_file: whether every error that names a file is the system's.
    """
    met = ([cause for cause in causes(error) if limit_behind(cause)] or [error])[-1]
    limit = limit_behind(met)
    what = error.what if isinstance(error, UserError) else in_a_sentence(met)
    if limit is not None:
        return UserError(f"{what}{limit.sentence}", fix=limit.fix)
    if kind_of(error) is MEMORY:
        return UserError(what, fix="free memory, and repeat the command")
    if kind_of(error) is PROCESSES:
        return UserError(what, fix="end other processes of yours, and repeat the command")
    if NO_TEMPORARY_FOLDER in str(error):
        return UserError(
            what, fix="free space in one of them, or choose another folder: export TMPDIR=FOLDER"
        )
    if isinstance(error, OSError) and (error.errno in OF_THE_MACHINE or (any_file and error.filename)):
        return UserError(what, fix="free space there, see to who may write (ls -ld), or name another folder")
    return None


def in_a_sentence(error: BaseException) -> str:
    """Return what an error says."""
    if isinstance(error, OSError) and NO_TEMPORARY_FOLDER not in str(error):
        return f"{named_file(error) or 'A file'} cannot be read or written: {error.strerror or error}."
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"Out of memory: {first}." if kind_of(error) is MEMORY else f"{first}."


def named_file(error: OSError) -> str | None:
    """Return the file that an error names; some libraries name it as bytes."""
    name = error.filename
    return None if name is None else f"{os.fsdecode(name) if isinstance(name, bytes) else name!s:.300}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it was raised from or after."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def limit_behind(error: BaseException) -> Limit | None:
    """Return the limit that an error has met; None where it met another, or there is no such limit."""
    limit = kind_of(error)
    if limit is PROCESSES and MEMORY.value is not None:  # a thread's stack is memory too
        limit = MEMORY
    return limit if limit is not None and limit.value is not None else None


def kind_of(error: BaseException) -> Limit | None:
    """Return what an error says there is too little of."""
    if isinstance(error, OSError):
        return FILE_SIZE if NO_TEMPORARY_FOLDER in str(error) else BY_ERRNO.get(error.errno or 0)
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, SystemError) and MEMORY.value is not None:  # C code that found no memory
        return MEMORY
    if isinstance(error, RuntimeError | ImportError):
        return next((limit for part, limit in BY_TEXT.items() if part in str(error)), None)
    return None


def refuse_few_threads() -> None:
    """Raise a UserError where the numerical libraries could not have their threads.

    They do not report it: OpenBLAS sends the process a SIGINT, OpenMP ends it.

    Raises:
        UserError: if this process may not start them.
    """
    typed = os.environ.get("OMP_NUM_THREADS", "")
    each = min(int(typed) if typed.isdecimal() else cores(), cores())
    end = Event()
    threads = [Thread(target=end.wait, daemon=True) for _ in range(POOLS * (each - 1) + 1)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        limit = limit_behind(error) or PROCESSES
        raise UserError(
            f"The system refuses a thread (this process needs {len(threads)}).{limit.sentence}",
            fix=f"{limit.fix}; with fewer threads: OMP_NUM_THREADS=1",
        ) from None  # the limit has been named
    finally:
        end.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_limited_memory(run: Callable[[], object]) -> None:
    """Run a function; where memory is limited in a process of its own, since C++ code ends its process.

    Raises:
        ProcessCrashedError: if that process was ended so.
    """
    if MEMORY.value is None or not can_have_own_process():
        run()
    elif (status := in_own_process(lambda: status_of(run))) == OUT_OF_MEMORY:
        raise ProcessCrashedError("its process ran out of memory")
    elif status:
        prepare_to_end()
        sys.exit(status)


def status_of(run: Callable[[], object]) -> int:
    """Run a function and return the exit status of a process that does."""
    try:
        run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if MEMORY in map(limit_behind, causes(error)):  # not even for the message was there enough
            return OUT_OF_MEMORY
        traceback.print_exc()  # as Python itself does
        return 1
    return 0
