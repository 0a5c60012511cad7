"""The interface of a data set's source."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from amtml_pl.types import Split, SplitName


@runtime_checkable
class DatasetSource(Protocol):
    """The source of a data set; a subclass without files inherits `missing`, `fetch`, `download_bytes`."""

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The names of the splits, ``("train", "test")`` or with ``"val"`` between them."""

    def missing(self) -> str | None:
        """Return what is missing and where it was searched; None if nothing is."""
        return None

    def fetch(self) -> None:
        """Download and verify what is missing; a UserError names another way to provide it."""

    def download_bytes(self) -> int | None:
        """Return the bytes to download; None if impossible, 0 if not needed."""
        return 0

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON: class and arguments, without places."""

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""

    def read(self, split: SplitName) -> Split:
        """Return one decoded split."""
