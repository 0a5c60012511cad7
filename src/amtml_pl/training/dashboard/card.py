"""Description of a run for TensorBoard's page "Text"."""

from __future__ import annotations

from collections.abc import Mapping

from amtml_pl.training.dashboard.figures import RunContext


def card(subject: RunContext, *, alone: bool) -> str:
    """Return the run's description as Markdown."""
    about, data = subject.about, subject.about.dataset
    sizes = ", ".join(f"{count:,} {split}" for split, count in data.sizes.items())
    rows = {
        "experiment": about.experiment,
        "command": f"`{about.command}`",
        "data": f"{data.name}: {sizes}",
        "student": f"{about.student.network}, {about.student.parameters:,} parameters",
        "teachers": ", ".join(about.teachers) or "none",
        "teachers' outputs": about.teacher_source or "none",
        "weighting": about.weighting or "none",
        "loss": " + ".join(f"{coefficient:g} · {name}" for name, coefficient in about.loss.items()),
        "temperature": about.temperature,
        **{name: value for name, value in about.budget.items() if name != "student_initial"},
        "seed": about.seed,
        "git": about.git.commit if about.git else "none",
        "versions": ", ".join(f"{name} {number}" for name, number in about.versions.items()),
    }
    cells = {name: str(value).replace("|", "\\|").replace("\n", " ") for name, value in rows.items()}
    lines = ["| | |", "|---|---|", *(f"| {name} | {cell} |" for name, cell in cells.items())]
    if left_out := not_shown(subject, alone=alone):
        lines += ["", "**Not shown:**", "", *(f"- {sentence}" for sentence in left_out)]
    return "\n".join(lines)


def not_shown(subject: RunContext, *, alone: bool) -> list[str]:
    """List what the dashboard cannot show of a run, and why."""
    sentences = []
    if subject.teachers and subject.held_out is None:
        sentences.append(
            "The ensemble on validation images: the teachers' outputs for these are not in the cache. "
            "python -m amtml_pl.cache action=build splits=[train,val], with the run's overrides, puts "
            "them there for all runs."
        )
    if not alone:
        sentences.append(
            "Of a run of several processes: shares of the gradient after the start, and disputed images. "
            "What is made of the student's answers is of the first process's share of the images."
        )
    return sentences


def result_card(
    metrics: Mapping[str, float],
    timing: Mapping[str, float],
    spent: Mapping[str, float],
) -> str:
    """Return the run's result as Markdown."""
    lines = [
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in metrics.items()),
    ]
    lines += ["", *(f"- {name}: {value:.1f}" for name, value in timing.items())]
    lines += [f"- dashboard, {name}: {value:.2f} s" for name, value in spent.items()]
    return "\n".join(lines)
