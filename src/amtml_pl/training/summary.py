"""Summary of a run on the console at its end."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from amtml_pl.config.overrides import hydra_literal
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.console import console, duration

# A folder without special characters of Hydra or a shell.
PLAIN = re.compile(r"/[A-Za-z0-9_/.+-]+")


def show_summary(record: RunRecord, folder: Path, *, with_next_commands: bool = True) -> None:
    """Print accuracies of student and teachers, the time, and the next commands."""
    metrics, timing = record.metrics, record.timed()
    table = Table(title=f"{escape(record.experiment or 'run')} (seed {record.seed})", title_justify="left")
    for column in ("accuracy", "validation", "test"):
        table.add_column(column, justify="left" if column == "accuracy" else "right")
    best = {} if record.selection == "last" else {"student, best epoch": "*/acc"}
    rows = {**best, "student, last epoch": "*/acc_last"}
    with_logits = (name for name, facts in record.teachers.items() if facts.has_logits)
    rows |= {f"teacher {name}": f"teacher/{name}/*/acc" for name in with_logits}
    for name, key in rows.items():
        found = (metrics.get(key.replace("*", split)) for split in ("val", "test"))
        table.add_row(escape(name), *("" if value is None else f"{value:.4f}" for value in found))
    console.print(table)
    by = f" by {record.processes} processes" if record.processes > 1 else ""
    console.print(
        f"Trained{by} in {duration(timing.fit_seconds)} ({timing.images_per_second:.0f} images/s). "
        f"The run folder is {escape(str(folder))}",
    )
    for command, what in next_commands(record, folder) if with_next_commands else []:
        console.print(f"  {escape(command)}  [dim]# {what}[/]")


def next_commands(record: RunRecord, folder: Path) -> list[tuple[str, str]]:
    """Return commands for a completed run, each with its purpose."""
    watch = f"tensorboard --logdir {shlex.quote(str(folder))}", "open http://localhost:6006/#custom_scalars"
    agreement = ", agreement with its teachers" if record.teachers else ""
    return [
        *([watch] if any(folder.glob("events.out.tfevents.*")) else []),
        (f"python -m amtml_pl.evaluate {override('run', folder)}", f"accuracy, calibration{agreement}"),
        (f"python -m amtml_pl.export {override('run', folder)} format=onnx", "writes an ONNX file"),
        (f"python -m amtml_pl.predict {override('model', folder)} images='photos/*.jpg'", "predicts classes"),
        (f"python -m amtml_pl.report {override('runs', folder.parent)}", "compares runs of the experiment"),
    ]


def override(key: str, folder: Path | str) -> str:
    """Return an override that names a place, quoted for Hydra and the shell."""
    place = str(folder)
    if PLAIN.fullmatch(place):
        return f"{key}={place}"
    literal = f"{key}={hydra_literal(place)}"
    # Double quotes around Hydra's single ones, unless the shell reads a character in them.
    return shlex.quote(literal) if set(literal) & set('"$`\\!') else f'"{literal}"'
