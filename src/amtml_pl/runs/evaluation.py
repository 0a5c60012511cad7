"""The schema of ``evaluate.json``: measurements of a finished run's student on a split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from amtml_pl.runs.record import GitState
from amtml_pl.system.records import Count, Positive, Record, Share

EARLIER = "(the numbers are those of an earlier evaluation)"


class EvaluatedDataset(Record):
    """The evaluated images; ``own`` means that they are of the run's own split."""

    name: str
    digest: str
    images: Count
    own: bool


class Ensemble(Record):
    """The teachers' mixture, and the reason if it does not use the run's own weights."""

    weights: Literal["own", "uniform"] = "own"
    weighting: str | None
    because: str = ""
    mixture: Literal["probabilities", "logits"]
    mean_weight: dict[str, float]


class ClassAccuracy(Record):
    """The accuracy on the images of a class; None without images."""

    acc: Share | None
    images: Count


class CorruptedAccuracy(Record):
    """Accuracy by corruption, one value per severity from 1 to 5, and its mean."""

    seed: int
    mean_acc: Share
    acc: dict[str, tuple[Share, ...]]


class Speed(Record):
    """Milliseconds per image: median and interquartile range of some repetitions."""

    ms_per_image: float
    spread: float
    repetitions: Positive


class Latency(Record):
    """The time per image of a network, in batches of 1 and of 128."""

    cpu: str
    threads: Positive
    batch_1: Speed
    batch_128: Speed


class StudentSize(Record):
    """The size of a student: its tensors in memory, and its file if it exists."""

    parameters: Count
    macs: Count
    bytes: Count
    file_bytes: Count | None = None


class Evaluation(Record):
    """The content of ``evaluate.json``.

    Attributes:
        metrics: ``<split>/acc`` and such of the student, ``teacher/<name>/<split>/...``,
            ``ensemble/<split>/...``; accuracies are in [0, 1].
        left_out: what was not measured, with the reason.
    """

    format: Literal[2] = 2
    experiment: str | None
    seed: int
    checkpoint: Literal["best", "last"]
    weights_digest: str
    split: Literal["train", "val", "test"]
    dataset: EvaluatedDataset
    device: str
    metrics: dict[str, float]
    ensemble: Ensemble | None
    classes: dict[str, ClassAccuracy]
    left_out: dict[str, str]
    latency: Latency | None
    size: StudentSize
    corruptions: CorruptedAccuracy | None = None
    command: str = ""
    git: GitState | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    def metric(self, whose: str, name: str) -> float | None:
        """Return a metric of the student (""), a ``teacher/<name>`` or the ``ensemble``, if any."""
        return self.metrics.get("/".join(part for part in (whose, self.split, name) if part))

    def with_earlier(self, before: Evaluation) -> Evaluation:
        """Return this evaluation, completed by an earlier one of the same student and images.

        Added are corruptions and latency that were not measured this time, and teachers and their ensemble
        that can no longer be found; the reason for leaving these out mentions it.
        """
        for subject in ("weights_digest", "split", "dataset"):
            if getattr(before, subject) != getattr(self, subject):
                return self
        metrics, left_out, ensemble = dict(self.metrics), dict(self.left_out), self.ensemble
        for whose, reason in self.left_out.items():
            earlier = {name: value for name, value in before.metrics.items() if name.startswith(f"{whose}/")}
            if earlier and whose == "ensemble":
                ensemble = before.ensemble
            if earlier or (whose == "latency" and before.latency):
                metrics |= earlier
                left_out[whose] = f"{reason} {EARLIER}"
        return self.replaced(
            metrics=metrics,
            left_out=left_out,
            ensemble=ensemble,
            corruptions=self.corruptions or before.corruptions,
            latency=self.latency or before.latency,
        )
