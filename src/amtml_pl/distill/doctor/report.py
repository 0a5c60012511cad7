"""Doctor's report on a run that is ready to begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import computed_field
from rich.markup import escape
from rich.table import Table

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.doctor.finding import Finding
from amtml_pl.distill.doctor.step import examine
from amtml_pl.distill.doctor.teachers import agreement, teacher_findings
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.models.layout import eager_execution
from amtml_pl.system.console import console, error_console
from amtml_pl.system.records import Record
from amtml_pl.teachers.cache.catalogue import TeacherExamination

SAMPLES = 32


class Checkup(Record):
    """Content of ``doctor.json``; a check that a teacher ended early is not ``whole``."""

    findings: tuple[Finding, ...]
    expected_defects: tuple[str, ...] = ()
    warnings: tuple[str, ...]
    gradient_share: dict[str, float]
    teachers: dict[str, TeacherExamination]
    agreement: dict[str, float]
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

    @computed_field  # type: ignore[prop-decorator]
    @property
    def healthy(self) -> bool:
        """Return whether the findings are exactly the expected ones."""
        return not self.unexpected and not self.missing_defects

    def refuse(self) -> None:
        """Raise a UserError if findings and expected defects differ."""
        lines = [f"  - {finding.name}: {finding.what}" for finding in self.unexpected]
        lines += [f"  - {name}: expected of this method, and not found" for name in self.missing_defects]
        if lines:
            raise UserError(
                "The doctor stops this run before it trains:\n" + "\n".join(lines),
                fix="correct it, or set expected_defects=[...] to exactly the findings that are meant to be "
                "there (doctor=false skips the check)",
            )


def check_up(
    module: StudentModule,
    data: PackedDataModule,
    teachers: Mapping[str, TeacherExamination],
    expected: Sequence[str] = (),
) -> Checkup:
    """Examine a module that is ready to be fitted; return the report."""
    batch = data.sample(SAMPLES).to(module.device)
    found = examine(module, batch)
    findings = [*found.findings]
    for name, examined in teachers.items():
        findings += teacher_findings(name, examined)
    pairs: dict[str, float] = {}
    if module.teacher_source is not None and not any(
        f.name.startswith("teacher-in-training-mode/") for f in findings
    ):
        names = module.teacher_source.names
        with torch.no_grad(), eager_execution():
            shared = agreement(module.teacher_source(batch).logits.float())
        pairs = {
            f"{one} and {other}": float(shared[i, i + 1 + j])
            for i, one in enumerate(names)
            for j, other in enumerate(names[i + 1 :])
        }
    return Checkup(
        findings=tuple(findings),
        expected_defects=tuple(expected),
        warnings=tuple(found.warnings),
        gradient_share=dict(found.share),
        teachers=dict(teachers),
        agreement=pairs,
        whole=found.whole,
    )


def show_checkup(found: Checkup) -> None:
    """Print the report."""
    table = Table(title="Share of the student's gradient", title_justify="left", show_edge=False)
    table.add_column("term")
    table.add_column("share", justify="right")
    for name, share in found.gradient_share.items():
        table.add_row(escape(name), f"{share:.4f}")
    if found.gradient_share:
        console.print(table)
    for name, examined in found.teachers.items():
        line = f"teacher {name}: accuracy {examined.accuracy:.4f} on {examined.images} images"
        console.print(line, markup=False)
    for pair, shared in found.agreement.items():
        line = f"{pair} name the same class for {shared:.1%} of {SAMPLES} training images"
        console.print(line, markup=False)
    for finding in found.findings:
        known = "expected: " if finding.name in found.expected_defects else ""
        console.print(f"[red]{known}{escape(finding.name)}[/]: {escape(finding.what)}")
    warn(found)
    if not found.findings:
        console.print("Nothing is wrong: every term trains what it claims to.")


def warn(found: Checkup) -> None:
    """Print the report's warnings to the error console."""
    for warning in found.warnings:
        error_console.print(f"[yellow]warning:[/] {escape(warning)}")
