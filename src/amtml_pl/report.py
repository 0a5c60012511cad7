"""``python -m amtml_pl.report runs=FOLDER``: one table of all completed runs below a folder."""

from __future__ import annotations

import csv
import io
import json
import shlex
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from amtml_pl.config_files import config_directory
from amtml_pl.entry_point import console, error_console, progress, reporting, start
from amtml_pl.errors import UserError
from amtml_pl.runs import RunFolder, write_text

COLUMNS = (
    "data set",
    "experiment",
    "settings",
    "n",
    "epochs",
    "val/acc",
    "test/acc",
    "test/acc_last",
    "minutes",
    "budget",
)
# Overrides that tell runs of one experiment apart without telling what was studied.
NO_SETTINGS = (
    "experiment",
    "sweep",
    "seed",
    "doctor",
    "checkpoint_minutes",
    "launcher",
    "logger",
    "resume",
    "prepare",
    "force",
    "debug",
    "trainer",
    "paths",
    "hydra",
)


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed.

    Attributes:
        dataset: the data set's name and digest: never average over different pixels.
        experiment: its name.
        settings: what the command of the first run sets besides experiment, seed, places and machine.
        records: their ``run.json``.
        unequal: in what its budget differs from that of most rows of the same experiment's problem.
    """

    dataset: str
    experiment: str
    settings: str
    records: Sequence[dict[str, Any]]
    unequal: tuple[str, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """One cell per column: accuracies in [0, 1] as mean ± standard deviation over seeds."""
        minutes = statistics.fmean(record["timing"]["fit_seconds"] / 60 for record in self.records)
        epochs = sorted({record["budget"]["epochs"] for record in self.records})
        return (
            self.dataset,
            self.experiment,
            self.settings,
            str(len(self.records)),
            "/".join(map(str, epochs)),
            *(mean_and_deviation([r["metrics"][name] for r in self.records]) for name in COLUMNS[5:8]),
            f"{minutes:.1f}",
            "; ".join(self.unequal) or "equal",
        )


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="report")
def run(config: DictConfig) -> None:
    """Prints the table and writes it as Markdown and CSV."""
    progress.begun = True
    folder = Path(config.runs)
    out = Path(config.out) if config.out else folder / "report"
    with reporting("amtml_pl.report", debug=False):
        rows = leaderboard(completed_records(folder))
        write_text(out / "report.md", markdown(rows))
        write_text(out / "report.csv", comma_separated(rows))
        show(rows)
        console.print(f"Saved as {out / 'report.md'} and {out / 'report.csv'}")


def completed_records(folder: Path) -> list[dict[str, Any]]:
    """The records of all completed runs below a folder.

    A damaged one is passed over with a warning.

    Raises:
        UserError: if the folder does not exist or holds no readable completed run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder.resolve()} is not a folder.", fix="runs=outputs/runs")
    records, unfinished, damaged = [], 0, 0
    for file in sorted(folder.rglob("run.json")):
        try:
            record = RunFolder(file.parent).completed()
            if record is None:
                unfinished += 1
                continue
            check_presentable(record)
        except (UserError, LookupError, TypeError, ValueError, AttributeError) as error:
            damaged += 1
            reason = f"{type(error).__name__}: {error}"
            error_console.print(
                f"[yellow]warning:[/] {escape(f'{file} is left out, it is damaged ({reason})')}"
            )
        else:
            records.append(record)
    if not records:
        found = f"{unfinished} unfinished" + (f", {damaged} damaged" if damaged else "")
        raise UserError(
            f"No completed run lies below {folder.resolve()} ({found}).",
            fix="python -m amtml_pl.train experiment=digits_amtml",
        )
    return records


def check_presentable(record: dict[str, Any]) -> None:
    """Fails, in whatever way, where a record lacks something that the report shows of it."""
    rows = leaderboard([record])
    markdown(rows)
    comma_separated(rows)


def leaderboard(records: Iterable[dict[str, Any]]) -> list[Row]:
    """Groups the records by everything but the seed; best mean test accuracy first within a data set."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["dataset"]["digest"], study(record)].append(record)
    rows = [
        Row(
            dataset=f"{group[0]['dataset']['name']} ({digest[:8]})",
            experiment=group[0]["experiment"] or "",
            settings=settings(group[0]["command"]),
            records=group,
        )
        for (digest, _), group in groups.items()
    ]
    ranked = sorted(rows, key=lambda row: (row.dataset, -statistics.fmean(accuracies(row))))
    return [replace(row, unequal=unequal_budget(row, rows)) for row in ranked]


def unequal_budget(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    """In what a row's budget differs from that of most rows of its data set and student.

    Fields that an older record lacks are passed over.
    """
    others = [other for other in rows if problem(other) == problem(row)]
    found = []
    for field in dict.fromkeys(field for other in others for field in budget_of(other)):
        usual = Counter(budget_of(other)[field] for other in others if field in budget_of(other))
        own = budget_of(row).get(field)
        if own is not None and own != usual.most_common(1)[0][0]:
            found.append(f"{field} {own}")
    return tuple(found)


def budget_of(row: Row) -> dict[str, str]:
    """Every field of the first run's budget as text; the initial weights for the seeds that were run."""
    fields = {name: str(value) for name, value in row.records[0]["budget"].items()}
    fields.pop("student_initial", None)
    for record in row.records:
        if (digest := record["budget"].get("student_initial")) is not None:
            fields[f"student_initial of seed {record['seed']}"] = digest
    return fields


def problem(row: Row) -> tuple[str, str]:
    """The data set and the student's network: what budgets are compared within."""
    return row.dataset, json.dumps(row.records[0].get("student"), sort_keys=True)


def study(record: dict[str, Any]) -> str:
    """What runs have in common that differ in nothing but the seed."""
    return str(record.get("study") or f"{record['experiment']} {settings(record['command'])}")


def settings(command: str) -> str:
    """The overrides of a command that say what was studied, as typed but unquoted."""
    overrides = [word for word in shlex.split(command)[3:] if not word.startswith("-")]
    return " ".join(word for word in overrides if not is_no_setting(word.lstrip("+~").partition("=")[0]))


def is_no_setting(key: str) -> bool:
    """Whether a key is one of ``NO_SETTINGS``, or lies in ``paths`` or ``hydra``."""
    return key in NO_SETTINGS or key.startswith(("paths.", "hydra.", "hydra/"))


def accuracies(row: Row) -> list[float]:
    """The test accuracies of a row's runs."""
    return [record["metrics"]["test/acc"] for record in row.records]


def mean_and_deviation(values: Sequence[float]) -> str:
    """``0.9123 ± 0.0021`` for several values, ``0.9123`` for one."""
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def show(rows: Sequence[Row]) -> None:
    """Prints the table."""
    table = Table(title="Completed runs", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for row in rows:
        table.add_row(*map(escape, row.cells()))
    console.print(table)
    for row in rows:
        if row.unequal:
            whose = f"{row.experiment} {row.settings}".strip()
            error_console.print(
                f"[yellow]warning:[/] {escape(f'{whose}: unequal budget: {row.cells()[-1]}')}"
            )


def markdown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def comma_separated(rows: Sequence[Row]) -> str:
    """One line per run with all its metrics."""
    flat = [
        {
            "dataset": row.dataset,
            "experiment": row.experiment,
            "settings": row.settings,
            "seed": r["seed"],
            **r["metrics"],
        }
        for row in rows
        for r in row.records
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for line in flat for name in line)), restval="")
    table.writeheader()
    table.writerows(flat)
    return text.getvalue()


if __name__ == "__main__":
    main()
