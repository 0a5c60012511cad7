"""Draw lines of means with their 95 % intervals, over a varied setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import Frame, Variant, colour, named, plain, titled


@dataclass(frozen=True)
class Line:
    """The means of a family by the varied setting, and extra text for some points."""

    name: str
    points: Mapping[float | str, Estimate]
    more: Mapping[float | str, str] = field(default_factory=dict)


def drawn(
    label: str, lines: Sequence[Line], metric: str, below: str, axis: Mapping[str, Any]
) -> tuple[Variant, Frame]:
    """Return lines of at least two points each, as one choice of a figure.

    Args:
        label: of the choice.
        lines: one for each family.
        metric: the title of the vertical axis.
        below: the title of the horizontal axis, such as ``temperature``.
        axis: other properties of it, in the terms of plotly.js.
    """
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": named(line.name),
            "x": list(line.points),
            "y": [estimate.mean for estimate in line.points.values()],
            "error_y": {
                "type": "data",
                "array": [estimate.half_width or 0 for estimate in line.points.values()],
                "width": 4,
            },
            "line": {"color": colour(number)},
            "text": [
                plain(f"{estimate} (n = {estimate.n}{line.more.get(x, '')})")
                for x, estimate in line.points.items()
            ],
            "hovertemplate": f"{plain(line.name)}, {plain(below)} %{{x}}: %{{text}}<extra></extra>",
        }
        for number, line in enumerate(lines)
    ]
    frame = Frame.of([estimate for line in lines for estimate in line.points.values()])
    layout = {
        "xaxis": titled(below, **axis),
        "yaxis": titled(metric, range=frame.range),
        "showlegend": True,
    }
    return Variant(label, traces, layout), frame
