"""TensorBoard's names: tags of metrics, charts, and a run's table row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from amtml_pl.config.overrides import overrides_of, value_of
from amtml_pl.runs.identity import result_overrides
from amtml_pl.runs.record import RunRecord

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

ENSEMBLE = {name: f"ensemble/{name}" for name in ("weight_entropy", "weight_above_0.95", "weight_known")}


def tag_of(metric: str) -> str:
    """Return a metric's tag: its teacher's, the ensemble's or the student's."""
    if metric in ENSEMBLE:
        return ENSEMBLE[metric]
    first, _, rest = metric.partition("/")
    if first == "weight":
        return f"teacher/{rest}/weight"
    return metric if first == "teacher" else f"student/{metric}"


# Final metrics of run.json and their tags; all runs have these of the student.
FINAL = {
    f"{split}/{metric}{last}": f"student/{'last' if last else 'best'}/{split}/{metric}"
    for metric in ("acc", "loss")
    for split in ("test", "val")
    for last in ("", "_last")
}


def final_tags(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of ``run.json`` that belong to no epoch, by tag."""
    of_teachers = {k: value for k, value in metrics.items() if k.startswith("teacher/") and "/test/" in k}
    return {tag: metrics[name] for name, tag in FINAL.items() if name in metrics} | of_teachers


def table_row(about: RunRecord, lr: float | None) -> list[Summary]:
    """Return the table's columns and this run's values, for its event file."""
    from torch.utils.tensorboard.summary import hparams  # only here: it takes seconds

    # SummaryWriter.add_hparams would open another run below this one.
    experiment, started, ended = hparams(hyperparameters(about, lr), dict.fromkeys(FINAL.values(), 0.0))  # type: ignore[no-untyped-call]
    return [experiment, started, ended]


def hyperparameters(about: RunRecord, lr: float | None) -> dict[str, str | float]:
    """Return what distinguishes runs; numbers stay numbers, for sorting and plotting."""
    budget, typed = about.budget, overrides_of(about.command)
    # TensorBoard sorts the columns by name and shows the first five. The first run defines the columns.
    return {
        "experiment": str(about.experiment),
        "loss": " + ".join(f"{coefficient:g} {term}" for term, coefficient in about.loss.items()),
        "method": value_of("method", typed) or "of the experiment",
        "overrides": " ".join(result_overrides(typed, left_out=("experiment", "method", "seed"))) or "none",
        "seed": float(about.seed),
        "student": last_part(about.student.network),
        "teachers": ", ".join(about.teachers) or "none",
        "temperature": float(about.temperature),
        "training/dataset": about.dataset.name,
        "training/batch_size": float(budget["batch_size"] or 0),
        "training/epochs": float(budget["epochs"] or 0),
        "training/lr": lr or 0.0,
        "training/loop": last_part(about.loop),
        "training/optimizer": str(budget["optimizer"]),
        "training/views": str(budget["views"]),
        "weighting": last_part(about.weighting),
    }


def last_part(target: str | None) -> str:
    """Return the class or function name at the end of a dotted name."""
    return "none" if target is None else target.rpartition(".")[2]


TEACHER = "teacher/[^/]+"
Layout = dict[str, dict[str, tuple[str, list[str]]]]


def chart_layout(teachers: int, terms: Sequence[str]) -> Layout:
    """Return categories of charts, whose lines are found by regular expressions.

    The expressions name no teacher: charts of several runs are one if title and expressions are the same.
    """
    layout = {
        "Accuracy of student, teachers and ensemble": {
            "accuracy on validation images": ["student/val/acc", "ensemble/val/acc", f"{TEACHER}/val/acc"],
            "accuracy on augmented training images": [
                "student/train/acc", "ensemble/train/acc", f"{TEACHER}/agreement_label",
            ],
            "calibration error on validation images": ["student/val/ece"],
        },
    }  # fmt: skip
    if teachers > 1:
        layout["Teacher weights"] = {
            "mean weight of each teacher": [f"{TEACHER}/weight"],
            "agreement of each teacher with the student": [
                f"{TEACHER}/agreement_student", "ensemble/agreement_student",
            ],
            "entropy of the weights, and each teacher's part": [
                "ensemble/weight_entropy", f"{TEACHER}/weight_entropy",
            ],
        }  # fmt: skip
    layout["Losses and gradients"] = {
        **{f"loss {term}, unweighted": [f"student/loss/{re.escape(term)}"] for term in terms},
        "loss, total": ["student/loss/total"],
        "share of the student's gradient": ["student/gradient_share/.*"],
        "learning rates": ["[^/]+/lr"],
    }
    return {
        category: {title: ("Multiline", [f"^{tag}$" for tag in tags]) for title, tags in charts.items()}
        for category, charts in layout.items()
    }
