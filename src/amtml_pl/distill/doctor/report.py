"""Doctor's report on a run that is ready to begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.markup import escape
from rich.table import Table

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.doctor.checkup import Checkup
from amtml_pl.distill.doctor.step import check_step
from amtml_pl.distill.doctor.teachers import prediction_agreement, teacher_findings
from amtml_pl.distill.module import StudentModule
from amtml_pl.models.layout import eager_execution
from amtml_pl.system.console import console, error_console
from amtml_pl.teachers.cache.catalogue import TeacherExamination

SAMPLES = 32


def check_up(
    module: StudentModule,
    data: PackedDataModule,
    teachers: Mapping[str, TeacherExamination],
    expected: Sequence[str] = (),
) -> Checkup:
    """Examine a module that is ready to be fitted; return the report."""
    batch = data.sample(SAMPLES).to(module.device)
    step = check_step(module, batch)
    agreement: dict[str, float] = {}
    if module.teacher_source is not None and step.whole:
        with torch.no_grad(), eager_execution():
            agreement = prediction_agreement(module.teacher_source(batch))
    findings = [f for name, examined in teachers.items() for f in teacher_findings(name, examined)]
    return step.replaced(
        findings=(*step.findings, *findings),
        expected_defects=tuple(expected),
        teachers=dict(teachers),
        agreement=agreement,
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
    for name, at in found.teachers.items():
        line = f"Teacher {name} has an accuracy of {at.accuracy:.4f} on {at.images} images."
        console.print(line, markup=False)
    for pair, agreement in found.agreement.items():
        line = f"Teachers {pair} predict the same class for {agreement:.1%} of {SAMPLES} training images."
        console.print(line, markup=False)
    for finding in found.findings:
        known = "expected: " if finding.name in found.expected_defects else ""
        console.print(f"[red]{known}{escape(finding.name)}[/]: {escape(finding.what)}")
    print_warnings(found)
    if not found.findings:
        console.print("No problems found: every loss term trains the expected parameters.")


def print_warnings(found: Checkup) -> None:
    """Print the report's warnings to the error console."""
    for warning in found.warnings:
        error_console.print(f"[yellow]warning:[/] {escape(warning)}")
