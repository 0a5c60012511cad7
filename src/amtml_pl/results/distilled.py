"""A student that was distilled for a folder of images, and exported."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amtml_pl.results.run import FinishedRun


@dataclass(frozen=True)
class Distilled:
    """A student that was distilled for a folder of images.

    Attributes:
        run: the completed run.
        file: the exported student.
        student: its name.
    """

    run: FinishedRun = field(repr=False)
    file: Path
    student: str

    @property
    def accuracy(self) -> float:
        """The student's accuracy on the test images, in [0, 1]."""
        return self.run.record.metrics["test/acc"]

    @property
    def teacher_accuracy(self) -> dict[str, float]:
        """The accuracy of each teacher on the test images, in [0, 1]."""
        metrics = self.run.record.metrics
        measured = {name: f"teacher/{name}/test/acc" for name in self.run.teacher_names}
        return {name: metrics[key] for name, key in measured.items() if key in metrics}

    def __repr__(self) -> str:
        """Return the accuracies and the places, one in each line."""
        return "\n".join(f"{name:24} {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        """Return the same as a table, for a notebook."""
        cells = (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in self.rows())
        return f"<table>{''.join(cells)}</table>"

    def rows(self) -> list[tuple[str, str]]:
        """Return the rows of both tables."""
        facts = self.run.record.student
        images = f"test accuracy ({self.run.record.dataset.sizes['test']} images)"
        accuracies = {f"student {self.student}": self.accuracy}
        accuracies |= {f"teacher {name}": value for name, value in self.teacher_accuracy.items()}
        return [
            ("", images),
            *((name, f"{value:.4f}") for name, value in accuracies.items()),
            ("parameters", f"{facts.parameters:,}"),
            ("file", f"{self.file} ({self.file.stat().st_size / 1e6:.1f} MB)"),
            ("run", str(self.run.path)),
        ]
