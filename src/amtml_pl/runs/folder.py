"""The run folder: its files, its lock, and checks that they are unchanged."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from amtml_pl.errors import UserError
from amtml_pl.system.files import digest_of_file, is_held
from amtml_pl.system.ranks import is_rank_zero

if TYPE_CHECKING:
    from amtml_pl.runs.record import RunRecord


class RunFolder:
    """A run's folder with configuration, record, checkpoints and tables; the first write creates it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "run.json"
        self.lock_file = path / ".lock"
        self.config_file = path / "config.yaml"
        self.doctor_file = path / "doctor.json"
        self.metrics_file = path / "metrics.csv"
        self.weights_by_class_file = path / "weights_by_class.csv"
        self.weights_file = path / "student.safetensors"
        self.broken_step = path / "not_finite.safetensors"
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        # The small files that every command reads and checks; the files of tensors.
        self.tables = (self.config_file, self.metrics_file, self.weights_by_class_file)
        self.weights = (self.weights_file, self.best_checkpoint, self.last_checkpoint)

    def record(self) -> RunRecord | None:
        """Return the record in ``run.json``, None if it does not exist; a UserError for damage."""
        from amtml_pl.runs.record import RunRecord
        from amtml_pl.system.records import find_record

        lost = self.path
        with suppress(OSError):  # of a closed folder
            if self.last_checkpoint.is_file():  # an interrupted run resumes from it, even without a record
                lost = self.record_file
        return find_record(RunRecord, self.record_file, fix=f"rm -r '{lost}'", anew="force=true")

    def seal(self) -> dict[str, str]:
        """Return the digest of each file of a completed run, by name."""
        files = (*self.tables, *self.weights)
        return {self._name(file): digest_of_file(file) for file in files if file.is_file()}

    def _name(self, file: Path) -> str:
        """Return a file's name in ``run.json``."""
        return file.relative_to(self.path).as_posix()

    def refuse_changed(self, record: RunRecord, *files: Path) -> None:
        """Raise a UserError for the first file that has changed since the run completed."""
        for file in files:
            name = self._name(file)
            expected = record.files.get(name)
            try:
                found = digest_of_file(file) if file.is_file() else None
            except OSError as error:
                raise UserError(
                    f"The file {file} cannot be read: {error.strerror or error}.",
                    fix=f"ask the owner for read access (ls -l '{self.path}' shows the owner)",
                ) from error
            if found != expected:
                got, wanted = (f"SHA-256 {d[:12]}" if d else "no file" for d in (found, expected))
                raise UserError(
                    f"The file {name} in {self.path} changed after the run (got {got}, expected {wanted}).",
                    fix=f"copy the run folder again, or repeat the run: {record.command} force=true",
                )

    def completed(self) -> RunRecord | None:
        """Return the record of a completed run, None for any other."""
        record = self.record()
        return record if record is not None and record.status == "completed" else None

    def write_record(self, record: RunRecord) -> None:
        """Replace ``run.json`` atomically, in one process of the run."""
        from amtml_pl.system.records import write_record

        if is_rank_zero():
            write_record(self.record_file, record)

    @property
    def is_busy(self) -> bool:
        """Return True if a process works in the folder."""
        try:
            return is_held(self.lock_file)
        except OSError:  # no write access
            return False

    def clear(self) -> None:
        """Remove the files of an earlier run, for ``force=true``."""
        files = (self.record_file, self.doctor_file, self.broken_step, *self.weights, *self.tables[1:])
        written = ("events.out.tfevents.*", "evaluate.json", "evaluate-*.json", "export/student[.-]*",
                   "export/*export.json*", "*-profile*.txt", "**/.student*.*", ".evaluate*.json")  # fmt: skip
        for file in (*files, *(found for name in written for found in self.path.glob(name))):
            file.unlink(missing_ok=True)
        for logger in ("csv", "wandb"):
            shutil.rmtree(self.path / logger, ignore_errors=True)
