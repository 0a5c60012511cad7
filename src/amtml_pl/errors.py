"""The exceptions of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

NETWORK = "student or teacher.NAME"  # the nodes of a configuration that describe a network


class UserError(Exception):
    """A mistake that the user can correct; shown without a traceback, exit status 2.

    Args:
        what: sentences: what is wrong and where, the value found and the value expected.
        fix: the command or change that corrects it; printed on its own line.
    """

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what if fix is None else f"{what}\nFix: {fix}")

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback."""
        return [f"error: {self}"]


@contextmanager
def naming(node: str) -> Iterator[None]:
    """Name a network's node in UserErrors of the code inside, which knows no configuration.

    Args:
        node: ``student`` or ``teacher.`` and a name.
    """

    def named(text: str) -> str:
        text = text.replace(NETWORK, node)
        return text if node == "student" else text.replace("teacher.NAME", node)

    try:
        yield
    except UserError as error:
        fix = None if error.fix is None else named(error.fix)
        UserError.__init__(error, named(error.what), fix=fix)  # the same object keeps its cause
        raise


class Interrupted(KeyboardInterrupt):
    """The end of a call by an interrupt; the same call resumes the run."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback."""
        return [str(self)]


class AnotherFailed(Exception):  # noqa: N818 - the failure is in another process
    """The end of a run because another of its processes has ended and reported why."""


class Preempted(BaseException):
    """The end of a process after SIGTERM; the same command resumes the run later."""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message; its type if that is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def raised_by(place: str, method: str, error: Exception) -> UserError:
    """Return the message for an exception of a part of the configuration.

    Args:
        place: the part's key, such as ``callbacks.mine`` or ``weighting``.
        method: of the part, which raised.
        error: what it raised.
    """
    group, _, name = place.partition(".")
    message = first_line(error).rstrip(".") or type(error).__name__
    # Whole words: half an address cannot be opened.
    text = shorten(message, 300, break_on_hyphens=False, placeholder=" …").lstrip(" …") or f"{message:.300}…"
    return UserError(
        f"{place} raised {type(error).__name__} in {method}: {text}{'' if text.endswith('…') else '.'} "
        "After a correction, the same command resumes the run from its last checkpoint, if it has one.",
        fix=f"correct {place} (traceback=true prints the traceback), or "
        + (f"leave it out of '{group}=[...]'" if name else f"choose another {group}"),
    )
