"""What a person reads when a run has come to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from amtml_pl.entry_point import console
from amtml_pl.plan import duration


def show_summary(record: Mapping[str, Any], folder: Path) -> None:
    """Prints accuracies of the student (best and last) and its teachers, the time, and where to look next."""
    metrics, timing = record["metrics"], record["timing"]
    table = Table(title=f"{record['experiment'] or 'run'} (seed {record['seed']})", title_justify="left")
    for column in ("accuracy", "validation", "test"):
        table.add_column(column, justify="left" if column == "accuracy" else "right")
    rows = [
        ("student, best epoch", "val/acc", "test/acc"),
        ("student, last epoch", "val/acc_last", "test/acc_last"),
    ]
    rows += [(f"teacher {t}", f"teacher/{t}/val/acc", f"teacher/{t}/test/acc") for t in record["teachers"]]
    for name, validation, test in rows:
        table.add_row(name, f"{metrics[validation]:.4f}", f"{metrics[test]:.4f}")
    console.print(table)
    console.print(
        f"Trained in {duration(timing['fit_seconds'])} ({timing['images_per_second']:.0f} images/s). "
        f"Everything is in {folder}",
    )
    console.print(
        f"  tensorboard --logdir '{folder}'\n  python -m amtml_pl.report runs='{folder.parent}'",
    )
