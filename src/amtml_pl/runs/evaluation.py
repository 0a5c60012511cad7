"""The schema of ``evaluate.json``: measurements of a finished run's student on a split."""

from __future__ import annotations

from typing import Annotated, Literal

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


# Ways to weight the teachers, by name in `Ensemble.mixtures`.
MIXTURES = {
    "uniform": "equal weights",
    "per_teacher": "one weight per teacher",
    "best_single": "best single teacher",
    "own_mean": "mean of the weights per image",
    "own": "weights per image",
    "likeliest": "likeliest teacher per image",
    "any_right": "any teacher right",
}


class TeacherMixture(Record):
    """The teachers' outputs, mixed by some weights and measured without a student.

    Attributes:
        acc: of the soft targets, at the temperature of the run.
        nll: of the labels at temperature 1, in nats; None for the share of images that any teacher has right.
        mean_weight: of each teacher; empty without weights.
        reads_labels: True if the weights of an image depend on its label.
    """

    acc: Share
    nll: float | None = None
    mean_weight: dict[str, float] = Field(default_factory=dict)
    reads_labels: bool = False


class WeightSpread(Record):
    """A teacher's weight over some images: mean and three quantiles."""

    mean: Share
    p10: Share
    p50: Share
    p90: Share


class Adaptivity(Record):
    """How the run's own weights of the teachers depend on the image and its class.

    Attributes:
        entropy: of the weights of an image in nats, mean over the images.
        deviation: root mean square distance of the weights from the teachers' mean weights; 0 if constant.
        between_classes: share of this variance between the means of the classes; None if constant.
        disputed: share of the images on which some teachers are right and others wrong.
        right: weight of the right teachers, mean over the disputed images; None without such images.
        right_constant: the same, if every image has the mean weights.
        teachers: the weight of each teacher over all images.
        classes: the same over the images of each class that has images.
    """

    entropy: Annotated[float, Field(ge=0)]
    deviation: Share
    between_classes: Share | None
    disputed: Share
    right: Share | None
    right_constant: Share | None
    teachers: dict[str, WeightSpread]
    classes: dict[str, dict[str, WeightSpread]]


class Ensemble(Record):
    """The teachers' mixture, and the reason if it does not use the run's own weights.

    Attributes:
        temperature: of the run's soft targets; the ensemble itself has temperature 1.
        mixtures: by the names in `MIXTURES`.
        absent: the mixtures that were not measured, with the reason.
        adaptivity: of the run's own weights; None if they are absent.
    """

    weights: Literal["own", "uniform"] = "own"
    weighting: str | None
    because: str = ""
    mixture: Literal["probabilities", "logits"]
    temperature: float
    mean_weight: dict[str, float]
    mixtures: dict[str, TeacherMixture]
    absent: dict[str, str]
    adaptivity: Adaptivity | None = None

    def left_out(self) -> list[tuple[str, str]]:
        """Return the absent mixtures, those with the same reason together, and the reason."""
        reasons = dict.fromkeys(self.absent.values())
        return [
            (", ".join(MIXTURES[name] for name, why in self.absent.items() if why == reason), reason)
            for reason in reasons
        ]

    def with_earlier(self, before: Ensemble) -> Ensemble:
        """Return this ensemble, with earlier mixtures that can no longer be measured."""
        kept = {name: before.mixtures[name] for name in self.absent if name in before.mixtures}
        absent = {name: f"{why} {EARLIER}" if name in kept else why for name, why in self.absent.items()}
        return self.replaced(
            mixtures=self.mixtures | kept, absent=absent, adaptivity=self.adaptivity or before.adaptivity
        )


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

    format: Literal[4] = 4
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
        if ensemble is not None and before.ensemble is not None:
            ensemble = ensemble.with_earlier(before.ensemble)
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
