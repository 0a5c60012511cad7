"""The figure of the teachers' weights within each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amtml_pl.comparison.adaptivity_table import ALL, MOST_CLASSES, Adapted, spreads_of
from amtml_pl.comparison.curves import rounded
from amtml_pl.comparison.figure import PageFigure, Trace, Variant, axis, colour, distinct_labels
from amtml_pl.runs.evaluation import WeightSpread


def weights_within_classes(groups: Sequence[Adapted]) -> PageFigure:
    """Return a figure of the teachers' weights by class, of a chosen group."""
    layout = {"xaxis": axis("class", type="category"), "yaxis": axis("weight", range=[-0.02, 1.02]),
              "scattermode": "group", "showlegend": True}  # fmt: skip
    variants = [Variant(group.name, traces_of(spreads_of(group)), layout) for group in groups if group.varies]
    return PageFigure(
        "spread",
        "Teacher weights of single images",
        "Weight of each teacher over the test images of each class: the median (point) and the range of the "
        "middle 80 % of the images (line). Long lines: the weights depend on the image. Points that differ "
        "between classes: the weights depend on the class. The numbers are means over the seeds.",
        variants,
        choice="group",
        is_wide=True,
    )


def traces_of(by_class: Mapping[str, Mapping[str, WeightSpread]]) -> list[Trace]:
    """Return points and lines of each teacher; many classes are sorted."""
    places = [*by_class]
    if len(places) > MOST_CLASSES + 1:
        places.sort(key=lambda place: (place != ALL, *rank(by_class[place])))
    labels, teachers = distinct_labels(places), [*by_class[ALL]]
    traces = []
    for number, (teacher, name) in enumerate(zip(teachers, distinct_labels(teachers), strict=True)):
        own = [by_class[place][teacher] for place in places]
        traces.append({
            "type": "scatter", "mode": "markers", "name": name, "offsetgroup": name, "x": labels,
            "y": [rounded(each.p50) for each in own],
            "error_y": {"type": "data", "symmetric": False, "thickness": 2, "width": 0,
                        "array": [rounded(each.p90 - each.p50) for each in own],
                        "arrayminus": [rounded(each.p50 - each.p10) for each in own]},
            "marker": {"size": 8, "color": colour(number)},
            "customdata": [f"mean {each.mean:.3f}, 80 % in {each.p10:.3f} to {each.p90:.3f}" for each in own],
            "hovertemplate": f"{name} on %{{x}}: median %{{y:.3f}}, %{{customdata}}<extra></extra>",
        })  # fmt: skip
    return traces


def rank(own: Mapping[str, WeightSpread]) -> tuple[int, float]:
    """Return a key that sorts by the favoured teacher, then by its weight."""
    means = [each.mean for each in own.values()]
    return means.index(max(means)), -max(means)
