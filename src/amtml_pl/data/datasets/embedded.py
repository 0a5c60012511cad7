"""What data sets have in common that need no file from anywhere."""

from __future__ import annotations


class Embedded:
    """The part of a `amtml_pl.data.source.DatasetSource` that looks for raw data; nothing is missing."""

    def missing(self) -> str | None:
        """What is missing and where it was looked for; None when the raw data is here."""
        return None

    def fetch(self) -> None:
        """Nothing to do."""

    def download_bytes(self) -> int | None:
        """What fetch would load; None when nothing can be downloaded, 0 when nothing need be."""
        return 0
