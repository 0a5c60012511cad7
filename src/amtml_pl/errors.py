"""The one exception for mistakes that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a missing thing that the user can mend: shown without a traceback, exit status 2.

    The message is made of sentences that say what is wrong, where, what was got and what was expected;
    ``fix`` is the command or the change that mends it.

    Args:
        what: what is wrong and where, with the value that was got and the one expected.
        fix: what to type or change; printed on a line of its own.
    """

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what if fix is None else f"{what}\nTo fix it: {fix}")


class AnotherFailed(Exception):  # noqa: N818 - it says what has happened, to processes that need not say it
    """Another process of the run has ended, of which it tells itself."""


class Preempted(BaseException):
    """Somebody wants the machine back (SIGTERM); the same command goes on later."""
