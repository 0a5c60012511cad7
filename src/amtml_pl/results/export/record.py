"""The schema of ``export.json``: the exported files of a run's student."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock
from pydantic import RootModel

from amtml_pl.errors import UserError
from amtml_pl.results.checkpoints import CheckpointName
from amtml_pl.runs.evaluation import Speed
from amtml_pl.runs.record import GitState
from amtml_pl.system.files import digest_of_file, output
from amtml_pl.system.records import Count, Positive, Record, Share, as_json, find_record


class Parity(Record):
    """The comparison of an export with its checkpoint, on real or random images.

    Attributes:
        max_abs_logit_difference: NaN if a logit is NaN.
        same_class: share of the images with the same class from both.
    """

    images: Count
    real: bool
    max_abs_logit_difference: float
    same_class: Share


class BothLatencies(Record):
    """The time per image of checkpoint and export on a CPU."""

    cpu: str
    threads: Positive
    batch: Positive
    before: Speed
    after: Speed


class ExportRecord(Record):
    """One exported file, named relative to the run's folder if it is inside."""

    format: str
    file: str
    checkpoint: CheckpointName
    parity: Parity
    bytes: Count
    sha256: str
    latency: BothLatencies
    command: str
    git: GitState | None
    versions: dict[str, str]


class ExportRecords(RootModel[dict[str, ExportRecord]]):
    """The content of ``export.json``: entries by the name of their file."""


def add_entry(record: Path, entry: ExportRecord) -> None:
    """Add an entry to a run's ``export.json``, or replace the one of the same file.

    Raises:
        UserError: if it cannot be written, or is damaged.
    """
    record.parent.mkdir(exist_ok=True)
    with FileLock(record.with_name(".export.json.lock")):  # several exports may end together
        entries = ExportRecords({**read_entries(record), entry.file: entry})
        with output(record) as temporary:
            temporary.write_text(as_json(entries))


def refuse_changed(file: Path) -> None:
    """Raise for an exported file that differs from its entry in ``export.json``.

    Raises:
        UserError: if its SHA-256 differs. A file that was moved away alone has no record.
    """
    entry = read_entries(file.with_name("export.json")).get(f"export/{file.name}")
    if entry is not None and (found := digest_of_file(file)) != entry.sha256:
        raise UserError(
            f"The file {file} changed after the export (got SHA-256 {found[:12]}, expected "
            f"{entry.sha256[:12]}).",
            fix=f"copy the export folder again, or repeat the export: {entry.command}",
        )


def read_entries(file: Path) -> dict[str, ExportRecord]:
    """Return the entries of a run's ``export.json``, by file; empty if it does not exist.

    Raises:
        UserError: if it is damaged.
    """
    found = find_record(ExportRecords, file, fix=f"rm '{file}'")
    return {} if found is None else found.root
