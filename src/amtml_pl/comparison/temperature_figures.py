"""Figures of a metric by temperature and coefficients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.families import Varied, families_of
from amtml_pl.comparison.figure import Figure, Variant, plain, titled
from amtml_pl.comparison.groups import Problem
from amtml_pl.comparison.lines import Line, drawn
from amtml_pl.comparison.recorded_run import Run

VARIED = Varied(settings=("temperature", "coef"), facts=("temperature", "loss"))
Coefficients = tuple[tuple[str, float], ...]
Cell = tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Sweep:
    """A family's estimates by temperature and by the coefficients that differ."""

    name: str
    terms: Sequence[str]
    cells: Mapping[Cell, Estimate]

    @property
    def temperatures(self) -> list[float]:
        """All temperatures, rising."""
        return sorted({temperature for temperature, _ in self.cells})

    @property
    def coefficients(self) -> list[tuple[float, ...]]:
        """All tuples of the terms' coefficients, rising."""
        return sorted({coefficients for _, coefficients in self.cells})


def temperature_figures(problem: Problem, metric: str) -> Iterator[Figure]:
    """Yield a heat map of methods with both varied, and lines of those with one."""
    sweeps = sweeps_of(problem, metric)
    both = [s for s in sweeps if len(s.temperatures) > 1 and len(s.coefficients) > 1 and len(s.cells) > 2]
    if both:
        yield Figure(
            "temperature",
            f"{metric} by temperature and coefficients",
            f"Mean {metric} over the seeds for each pair of a temperature and coefficients.",
            [heat_map(sweep, metric) for sweep in both],
            choice="method",
        )
    if hotter := [s for s in sweeps if len(s.temperatures) > 1 and len(s.coefficients) == 1]:
        yield over_temperatures(hotter, metric)
    if weighted := [s for s in sweeps if len(s.temperatures) == 1 and len(s.coefficients) > 1]:
        yield over_coefficients(weighted, metric)


def sweeps_of(problem: Problem, metric: str) -> list[Sweep]:
    """Return the families of groups that differ only in temperature and coefficients."""
    groups = [group for group in problem.groups if group.first.record.loss]
    sweeps = []
    for family in families_of(groups, VARIED, place_of):
        own = [dict(coefficients) for _, coefficients in family.groups]
        terms = [term for term in dict.fromkeys(term for each in own for term in each)
                 if len({each.get(term, 0.0) for each in own}) > 1]  # fmt: skip
        cells = {
            (temperature, tuple(dict(coefficients).get(term, 0.0) for term in terms)): estimate
            for (temperature, coefficients), group in family.groups.items()
            if (estimate := group.estimate(metric)) is not None
        }
        sweeps.append(Sweep(family.name, terms, cells))
    return sweeps


def place_of(run: Run) -> tuple[float, Coefficients]:
    """Return temperature and coefficients, without coefficients of 0."""
    record = run.record
    return record.temperature, tuple((term, own) for term, own in sorted(record.loss.items()) if own)


def heat_map(sweep: Sweep, metric: str) -> Variant:
    """Return a heat map with a cell for each pair that was run."""
    temperatures, coefficients = sweep.temperatures, sweep.coefficients
    cells = [[sweep.cells.get((t, c)) for t in temperatures] for c in coefficients]
    trace = {
        "type": "heatmap", "x": [f"{t:g}" for t in temperatures],
        "y": [label_of(sweep.terms, c) for c in coefficients],
        "z": [[cell and cell.mean for cell in row] for row in cells],
        "text": [["" if cell is None else f"{cell.mean:.4f}" for cell in row] for row in cells],
        "texttemplate": "%{text}", "colorscale": "Viridis", "colorbar": {"title": {"text": plain(metric)}},
        "hovertemplate": "T = %{x}, %{y}: %{z:.4f}<extra></extra>", "xgap": 2, "ygap": 2,
    }  # fmt: skip
    layout = {
        "xaxis": titled("temperature", type="category"),
        "yaxis": titled("coefficient", type="category"),
    }
    return Variant(sweep.name, [trace], layout)


def label_of(terms: Sequence[str], coefficients: Sequence[float]) -> str:
    """Return coefficients as text, such as ``kd 1, hint 0.5``."""
    return ", ".join(f"{plain(term)} {own:g}" for term, own in zip(terms, coefficients, strict=True))


def over_temperatures(sweeps: Sequence[Sweep], metric: str) -> Figure:
    """Return a figure with a line for each method, over the temperature."""
    lines = [Line(s.name, {t: e for (t, _), e in sorted(s.cells.items())}) for s in sweeps]
    temperatures = sorted({temperature for sweep in sweeps for temperature in sweep.temperatures})
    variant, frame = drawn("", lines, metric, "temperature", {"tickvals": temperatures})
    return Figure(
        "temperatures",
        f"{metric} by temperature",
        f"Mean {metric} with its 95 % interval over the seeds for each temperature.{frame.note}",
        [variant],
    )


def over_coefficients(sweeps: Sequence[Sweep], metric: str) -> Figure:
    """Return a figure with a line for each method, over the coefficients of chosen terms."""
    by_terms: dict[tuple[str, ...], list[Sweep]] = defaultdict(list)
    for sweep in sweeps:
        by_terms[tuple(sweep.terms)].append(sweep)
    variants, note = [], ""
    for terms, own in sorted(by_terms.items()):
        lines = [Line(s.name, {label_of(terms, c): e for (_, c), e in sorted(s.cells.items())}) for s in own]
        below = f"coefficient{'s' if len(terms) > 1 else ''}"
        labels = [label_of(terms, c) for c in sorted({c for s in own for c in s.coefficients})]
        axis = {"type": "category", "categoryarray": labels}
        variant, frame = drawn(", ".join(terms), lines, metric, below, axis)
        variants.append(variant)
        note = note or frame.note
    return Figure(
        "coefficients",
        f"{metric} by coefficient",
        f"Mean {metric} with its 95 % interval over the seeds for each coefficient that was varied.{note}",
        variants,
        choice="loss term",
    )
