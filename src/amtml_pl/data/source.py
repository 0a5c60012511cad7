"""Where a data set comes from."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from amtml_pl.types import Split, SplitName


@runtime_checkable
class DatasetSource(Protocol):
    """Where a data set comes from: what ``amtml_pl.data.datasets`` has one file for each of."""

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """``("train", "test")``, or with the data set's own ``"val"`` between them."""

    def missing(self) -> str | None:
        """What is missing and where it was looked for; None when the raw data is here."""

    def fetch(self) -> None:
        """Downloads and verifies what is missing; a UserError says how else it can be provided."""

    def download_bytes(self) -> int | None:
        """What ``fetch`` would load; None when nothing can be downloaded, 0 when nothing need be."""

    def identity(self) -> dict[str, Any]:
        """What decides the pixels, as JSON: the class and its arguments, but for places."""

    def signature(self) -> str | None:
        """A cheap identity of the raw data on this machine; None when there is none."""

    def read(self, split: SplitName) -> Split:
        """One split, decoded."""
