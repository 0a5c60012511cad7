"""What a metric of `metrics.csv` is called in TensorBoard, where its name says whose it is."""

from __future__ import annotations

ENSEMBLE = {"weight_entropy": "ensemble/weight_entropy", "weight_above_0.95": "ensemble/weight_above_0.95"}


def tag_of(metric: str) -> str:
    """A weight is its teacher's, how all weights are spread the ensemble's, everything else the student's."""
    if metric in ENSEMBLE:
        return ENSEMBLE[metric]
    first, _, rest = metric.partition("/")
    if first == "weight":
        return f"teacher/{rest}/weight"
    return metric if first == "teacher" else f"student/{metric}"
