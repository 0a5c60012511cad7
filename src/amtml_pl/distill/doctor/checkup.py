"""Findings of the doctor, and the record of them in ``doctor.json``."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, computed_field

from amtml_pl.errors import UserError
from amtml_pl.system.records import Record
from amtml_pl.teachers.cache.catalogue import TeacherExamination


@dataclass(frozen=True)
class Finding:
    """Defect of a run."""

    name: str  # as ``expected_defects`` lists it
    what: str  # a sentence


class Checkup(Record):
    """Content of ``doctor.json``; a check that an unfrozen teacher ended early is not ``whole``."""

    findings: tuple[Finding, ...]
    expected_defects: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    gradient_share: dict[str, float] = Field(default_factory=dict)
    teachers: dict[str, TeacherExamination] = Field(default_factory=dict)
    agreement: dict[str, float] = Field(default_factory=dict)
    whole: bool = True

    @property
    def unexpected(self) -> list[Finding]:
        """Findings that are not expected."""
        return [finding for finding in self.findings if finding.name not in self.expected_defects]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def missing_defects(self) -> list[str]:
        """Expected defects that were not found."""
        found = {finding.name for finding in self.findings}
        return [name for name in self.expected_defects if name not in found] if self.whole else []

    def refuse(self) -> None:
        """Raise a UserError if findings and expected defects differ."""
        lines = [f"  - {finding.name}: {finding.what}" for finding in self.unexpected]
        lines += [f"  - {name}: listed in expected_defects but not found" for name in self.missing_defects]
        if lines:
            raise UserError(
                "The check before training failed:\n" + "\n".join(lines),
                fix="correct the configuration, or list the intended findings: 'expected_defects=[NAME]' "
                "(doctor=false skips the check)",
            )
