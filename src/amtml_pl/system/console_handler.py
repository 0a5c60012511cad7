"""Log messages on the console: `conf/hydra/job_logging/console.yaml`."""

from __future__ import annotations

import logging

from amtml_pl.config.command import console


class ConsoleHandler(logging.Handler):
    """Prints what is logged as the console prints all else, so above a line that stays in its place.

    A handler of a stream would hold the standard output of before that line, and write into its middle.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message."""
        console.print(self.format(record), markup=False)
