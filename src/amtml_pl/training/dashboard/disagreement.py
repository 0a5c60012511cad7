"""Images on which the teachers disagree most, with the student's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.losses.soft_targets import integrated_soft_targets
from amtml_pl.training.dashboard.drawing import new_figure, shorten
from amtml_pl.training.dashboard.teaching import concatenated
from amtml_pl.types import Mixture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES_SHOWN = 10
EXAMPLES = 4


@dataclass(frozen=True)
class Examples:
    """Samples with all outputs of their step.

    Attributes:
        images: ``(N, 3, H, W)`` in [0, 1].
        labels: ``(N,)``.
        teachers: ``(N, M, K)``, logits.
        weights: ``(N, M)``, rows sum to 1.
        student: ``(N, K)``, logits.
    """

    images: Float[Tensor, "N 3 H W"]
    labels: Int64[Tensor, " N"]
    teachers: Float[Tensor, "N M K"]
    weights: Float[Tensor, "N M"]
    student: Float[Tensor, "N K"]

    def most_disputed(self, count: int) -> Examples:
        """Return the samples with the highest `disagreement`, the highest first."""
        order = disagreement(self.teachers).argsort(descending=True, stable=True)[:count]
        return Examples(*(column[order] for column in vars(self).values()))


@dataclass
class MostDisputed:
    """Buffer of the most disputed samples so far, on the device of the steps."""

    kept: Examples | None = None  # the most disputed first; None before the first step
    seen: int = 0  # number of samples that were offered

    def see(self, examples: Examples) -> None:
        """Store a step's samples that are more disputed than the stored ones."""
        before = [] if self.kept is None else [self.kept]
        both = concatenated([*before, examples.most_disputed(EXAMPLES)], examples.labels.device)
        self.kept = both.most_disputed(EXAMPLES)
        self.seen += len(examples.labels)


def disagreement(teacher_logits: Float[Tensor, "N M K"]) -> Float[Tensor, " N"]:
    """Return the Jensen-Shannon divergence of the teachers' probabilities, (N,).

    ``H(mean_m p_m) − mean_m H(p_m)`` in nats, from 0 (all agree) to ln M. Temperature 1: softened, teachers
    of one class and unlike confidence would come before teachers of different classes.
    """
    probabilities = torch.softmax(teacher_logits.double(), dim=2)
    entropy = torch.special.entr(probabilities).sum(dim=2).mean(dim=1)
    mixed: Tensor = torch.special.entr(probabilities.mean(dim=1)).sum(dim=1) - entropy
    return mixed


def draw_examples(
    examples: Examples,
    names: Sequence[str],
    classes: Sequence[str],
    temperature: float,
    mixture: Mixture = "probabilities",
) -> Figure:
    """Draw a row per sample: image, weighted teachers, their mixture, student."""
    targets = integrated_soft_targets(examples.teachers, examples.weights, temperature, mixture)
    teachers = torch.softmax(examples.teachers / temperature, dim=2)
    student = torch.softmax(examples.student / temperature, dim=1)
    N, M = examples.weights.shape
    height = 2.0 * N + 0.9
    figure = new_figure(2.0 * (M + 3), height, fitted=False)
    rows = figure.subplots(N, M + 3, squeeze=False)
    figure.subplots_adjust(0.02, 0.75 / height, 0.99, 1 - 0.8 / height, wspace=0.25, hspace=0.75)
    likeliest = max(float(each.max()) for each in (targets, teachers, student))
    for i, row in enumerate(rows):
        shown = targets[i].topk(min(CLASSES_SHOWN, len(classes))).indices.sort().values
        label = int(examples.labels[i])
        row[0].imshow(examples.images[i].clamp(0, 1).permute(1, 2, 0).numpy())
        row[0].set_axis_off()
        row[0].set_title(shorten(classes[label]), fontsize=8)
        for m, name in enumerate(names):
            title = f"{shorten(name)}\nweight {examples.weights[i, m]:.3f}"
            draw_probabilities(row[1 + m], teachers[i, m], shown, label, title)
        draw_probabilities(row[M + 1], targets[i], shown, label, "integrated target")
        draw_probabilities(row[M + 2], student[i], shown, label, "student")
        for axes in row[2:]:
            axes.set_yticks([])  # shared with the first one
        for axes in row[1:]:
            axes.set_ylim(0, min(1.0, 1.1 * likeliest))
        for column in (row[1], row[M + 2]):
            column.set_xticks(range(len(shown)), [shorten(classes[k], 8) for k in shown], rotation=90)
    figure.suptitle(f"Where the teachers disagree most (probabilities at T = {temperature:g})", fontsize=9)
    return figure


def draw_probabilities(
    axes: Axes, probabilities: Float[Tensor, " K"], shown: Int64[Tensor, " k"], label: int, title: str
) -> None:
    """Draw a bar for each shown class, the label's in another colour."""
    colours = ["tab:green" if int(k) == label else "tab:blue" for k in shown]
    axes.bar(range(len(shown)), probabilities[shown].tolist(), color=colours)
    axes.set_xticks([])
    axes.tick_params(labelsize=6)
    axes.set_title(title, fontsize=8)
