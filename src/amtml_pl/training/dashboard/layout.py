"""The charts of TensorBoard's page "Custom scalars", the ones that a person asks for first."""

from __future__ import annotations

import re
from collections.abc import Sequence

TEACHER = "teacher/[^/]+"
Layout = dict[str, dict[str, tuple[str, list[str]]]]


def chart_layout(teachers: int, terms: Sequence[str]) -> Layout:
    """Categories of charts, each of lines that are found by regular expressions.

    The expressions name no teacher: charts of several runs are one where title and expressions are the same.

    Args:
        teachers: M.
        terms: everything that the student's loss sums up.
    """
    layout = {
        "Does it help? Student against teachers and ensemble": {
            "accuracy on validation images": ["student/val/acc", "ensemble/val/acc", f"{TEACHER}/val/acc"],
            "accuracy on training images, as they were augmented": [
                "student/train/acc", "ensemble/train/acc", f"{TEACHER}/agreement_label",
            ],
            "calibration error on validation images": ["student/val/ece"],
        },
    }  # fmt: skip
    if teachers > 1:
        layout["Whom does it listen to?"] = {
            "mean weight of each teacher": [f"{TEACHER}/weight"],
            "agreement of each teacher with the student": [
                f"{TEACHER}/agreement_student", "ensemble/agreement_student",
            ],
            "entropy of the weights, and each teacher's part": [
                "ensemble/weight_entropy", f"{TEACHER}/weight_entropy",
            ],
        }  # fmt: skip
    layout["What is it trained by?"] = {
        **{f"loss {term}, unweighted": [f"student/loss/{re.escape(term)}"] for term in terms},
        "loss, total": ["student/loss/total"],
        "share of the student's gradient": ["student/gradient_share/.*"],  # of the terms that train it
        "learning rates": ["[^/]+/lr"],
    }
    return {
        category: {title: ("Multiline", [f"^{tag}$" for tag in tags]) for title, tags in charts.items()}
        for category, charts in layout.items()
    }
