"""The run folder: what it holds, who may read it, and how nothing half-written is taken for whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from amtml_pl.errors import UserError
from amtml_pl.runs.record import absent_fields, record_problems
from amtml_pl.system.files import is_sealed, read_json, sealed, write_text
from amtml_pl.system.ranks import leads

Status = Literal["completed", "failed", "interrupted"]
FORMAT = 2


class RunFolder:
    """One run's folder: ``config.yaml``, ``run.json``, ``checkpoints/``, ``metrics.csv``, event files.

    Args:
        path: the folder; created by the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "run.json"
        self.config_file = path / "config.yaml"
        self.doctor_file = path / "doctor.json"
        self.metrics_file = path / "metrics.csv"
        self.weights_by_class_file = path / "weights_by_class.csv"
        self.weights_file = path / "student.safetensors"
        self.broken_step = path / "not_finite.safetensors"
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"

    def record(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None where there is none.

        Raises:
            UserError: if the file cannot be read as a run's record of this format.
        """
        try:
            if not self.record_file.exists():
                return None
            record = read_json(self.record_file)
        except OSError as error:  # a permission, a disk: not the record's fault
            raise UserError(
                f"{self.record_file} cannot be read: {error.strerror or error}.",
                fix=f"have yourself given the right to read it, by whom ls -ld '{self.path}' names",
            ) from error
        except ValueError as error:
            raise UserError(
                f"{self.record_file} is not a run's record: {error}.", fix=f"rm -r '{self.path}'"
            ) from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            got = record.get("format") if isinstance(record, dict) else type(record).__name__
            later = type(got) is int and got > FORMAT
            whose = "; a later version of amtml_pl has written it" if later else ""
            raise UserError(
                f"{self.record_file} has format {got!s:.80}; expected {FORMAT}{whose}.", fix="force=true"
            )
        problems = [*record_problems(record)]
        if not is_sealed(record):
            problems.append("its digest is not that of its other fields")
        if problems:
            # A run that was interrupted goes on from its last checkpoint, without a record too.
            lost = self.record_file if self.last_checkpoint.is_file() else self.path
            raise UserError(
                f"{self.record_file} is damaged: {'; '.join(problems[:3])}.", fix=f"rm -r '{lost}'"
            )
        return record

    def refuse_incomplete(self, record: Mapping[str, Any]) -> None:
        """Refuses a record that lacks what going on with its run, or summing it up, takes.

        Raises:
            UserError: naming what it lacks.
        """
        if absent := absent_fields(record):
            raise UserError(f"{self.record_file} lacks {', '.join(absent)}.", fix=f"rm -r '{self.path}'")

    def seal(self) -> dict[str, str]:
        """Return the digest of each file that a completed run is made of, by its name in the folder."""
        files = (*self.tables, *self.weights)
        return {self.name_of(file): digest_of_file(file) for file in files if file.is_file()}

    @property
    def tables(self) -> tuple[Path, ...]:
        """What commands read of every run, and what is small enough to be checked each time."""
        return self.config_file, self.metrics_file, self.weights_by_class_file

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files of tensors, which may be large and which not every command reads."""
        return self.weights_file, self.best_checkpoint, self.last_checkpoint

    def name_of(self, file: Path) -> str:
        """Return what ``run.json`` calls a file of the folder."""
        return file.relative_to(self.path).as_posix()

    def refuse_changed(self, record: Mapping[str, Any], *files: Path) -> None:
        """Raise an error for a file that is not the one which the completed run has left.

        Args:
            record: what ``run.json`` says.
            files: of the folder.

        Raises:
            UserError: naming the first of them.
        """
        for file in files:
            name = self.name_of(file)
            expected = record["files"].get(name)
            try:
                found = digest_of_file(file) if file.is_file() else None
            except OSError as error:
                raise UserError(
                    f"{file} cannot be read: {error.strerror or error}.",
                    fix=f"have yourself given the right to read it: ls -l '{self.path}'",
                ) from error
            if found != expected:
                got = "absent" if found is None else f"SHA-256 {found[:12]}"
                wanted = "none" if expected is None else f"SHA-256 {expected[:12]}"
                raise UserError(
                    f"{name} in {self.path} was changed after the run (got {got}, expected {wanted}).",
                    fix=f"copy the whole folder again, or repeat the run: {record['command']} force=true",
                )

    def completed(self) -> dict[str, Any] | None:
        """The record of a run that came to its end, None otherwise."""
        record = self.record()
        return record if record is not None and record["status"] == "completed" else None

    def write_record(self, status: Status, **fields: Any) -> None:  # noqa: ANN401
        """Replaces ``run.json`` in one instant; of several processes of a run the first one does."""
        if not leads():
            return
        record = sealed({"format": FORMAT, "status": status, **fields})
        write_text(self.record_file, json.dumps(record, indent=2) + "\n")

    def clear(self) -> None:
        """Removes what an earlier run left, so that ``force=true`` starts from nothing."""
        leftovers = [
            self.record_file,
            self.doctor_file,
            self.metrics_file,
            self.weights_by_class_file,
            self.weights_file,
            self.broken_step,
        ]
        events = self.path.glob("events.out.tfevents.*")
        evaluations = [*self.path.glob("evaluate.json"), *self.path.glob("evaluate-*.json")]
        exports = [*self.path.glob("export/student[.-]*"), *self.path.glob("export/*export.json*")]
        killed = [*self.path.glob("**/.student*.*"), *self.path.glob(".evaluate*.json")]
        measured = (*evaluations, *exports, *killed)
        for file in (*leftovers, self.best_checkpoint, self.last_checkpoint, *events, *measured):
            file.unlink(missing_ok=True)


def digest_of_file(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
