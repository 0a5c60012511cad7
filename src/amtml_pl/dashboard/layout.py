"""The charts of TensorBoard's page "Custom scalars", the ones that a person asks for first."""

from __future__ import annotations

import re
from collections.abc import Sequence

Layout = dict[str, dict[str, tuple[str, list[str]]]]


def chart_layout(teachers: Sequence[str], terms: Sequence[str], rates: Sequence[str]) -> Layout:
    """Categories of charts, each of lines that are found by regular expressions.

    Args:
        teachers: the M teachers.
        terms: everything that the student's loss sums up.
        rates: the tags of the learning rates.
    """
    accuracy = ["student/val/acc"]
    trained = ["student/train/acc"]
    if teachers:
        accuracy += ["ensemble/val/acc", *(f"teacher/{name}/val/acc" for name in teachers)]
        trained += ["ensemble/train/acc", *(f"teacher/{name}/agreement_label" for name in teachers)]
    layout = {
        "Does it help? Student against teachers and ensemble": {
            "accuracy on validation images": accuracy,
            "accuracy on training images, as they were augmented": trained,
            "calibration error on validation images": ["student/val/ece"],
        },
    }
    if len(teachers) > 1:
        layout["Whom does it listen to?"] = {
            "mean weight of each teacher": [f"teacher/{name}/weight" for name in teachers],
            "agreement of each teacher with the student": [
                *(f"teacher/{name}/agreement_student" for name in teachers), "ensemble/agreement_student",
            ],
            "entropy of the weights, and each teacher's part": [
                "ensemble/weight_entropy", *(f"teacher/{name}/weight_entropy" for name in teachers),
            ],
        }  # fmt: skip
    layout["What is it trained by?"] = {
        **{f"loss {term}, unweighted": [f"student/loss/{term}"] for term in terms},
        "loss, total": ["student/loss/total"],
        "share of the student's gradient": ["student/gradient_share/"],  # of the terms that train it
        "learning rates": list(rates),
    }
    return {
        category: {title: ("Multiline", [*map(pattern, tags)]) for title, tags in charts.items()}
        for category, charts in layout.items()
    }


def pattern(tag: str) -> str:
    """What finds exactly this tag, or for one that ends in a slash all below it."""
    return f"^{re.escape(tag)}{'' if tag.endswith('/') else '$'}"
