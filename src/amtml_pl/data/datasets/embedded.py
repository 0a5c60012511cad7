"""The common part of data sets that need no files."""

from __future__ import annotations


class Embedded:
    """The raw-data methods of a `amtml_pl.data.source.DatasetSource` that needs no files."""

    def missing(self) -> str | None:
        """Return None: nothing can be missing."""
        return None

    def fetch(self) -> None:
        """Do nothing, as there is nothing to fetch."""

    def download_bytes(self) -> int | None:
        """Return 0: nothing must be downloaded."""
        return 0
