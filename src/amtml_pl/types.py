"""The types that pass between data, networks, weighting and losses.

Shape alphabet of the whole project: ``B`` batch, ``N`` split size, ``M`` teachers, ``K`` classes,
``C, H, W`` channels and size, ``V`` views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

SplitName: TypeAlias = Literal["train", "val", "test"]
Shape: TypeAlias = tuple[int, int, int]
Labels: TypeAlias = Int64[Tensor, " B"]
TeacherWeights: TypeAlias = Float[Tensor, "B M"]
Mixture: TypeAlias = Literal["probabilities", "logits"]  # what soft targets average over the teachers
T = TypeVar("T")


@dataclass(frozen=True)
class Split:
    """One split of a data set as it is stored: unaugmented, not normalised.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)`` int64 in ``[0, K)``.
        classes: the K class names, in label order.
        left_out: files beside the images that are not read, counted by suffix.
    """

    images: UInt8[Tensor, "N 3 H W"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)


def counted_kinds(left_out: Mapping[str, int]) -> str:
    """Return a summary of unread files: ``ignored 1 file of an unsupported type (.tif 1)``."""
    number = sum(left_out.values())
    kinds = sorted(left_out.items(), key=lambda kind: (-kind[1], kind[0]))
    listed = ", ".join(f"{suffix or 'without a suffix'} {count:,}" for suffix, count in kinds)
    return f"ignored {number:,} file{'s' * (number != 1)} of an unsupported type ({listed})"


class Tensors:
    """A dataclass with tensors, also in mappings and in dataclasses below it."""

    def map(self: T, change: Callable[[Tensor], Tensor]) -> T:
        """Return the same values with every tensor changed."""
        return _mapped(self, change)  # type: ignore[no-any-return]


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(each, change) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _mapped(getattr(value, f.name), change) for f in fields(value)})
    return value


@dataclass(frozen=True)
class ModelOutputs(Tensors):
    """The outputs of one network for a batch.

    Attributes:
        logits: ``(B, K)``.
        features: per tap (a dotted module path) its output, ``(B, C, H, W)``.
    """

    logits: Float[Tensor, "B K"]
    features: Mapping[str, Float[Tensor, "B _ _ _"]] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherOutputs(Tensors):
    """The outputs of all teachers for a batch, live or read from a cache.

    Attributes:
        names: the M teachers, in the order of axis 1 of ``logits``.
        logits: ``(B, M, K)``; minus infinity, probability 0, for a class that a teacher does not know.
        hints: per flat name ``"<teacher>/<tap>"`` a feature map, ``(B, C, H, W)``.
    """

    names: tuple[str, ...]
    logits: Float[Tensor, "B M K"]
    hints: Mapping[str, Float[Tensor, "B _ _ _"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Mixed(Tensors):
    """The partners that mixup blends into the images of a batch.

    Attributes:
        labels: ``(B,)``, the label of each image's partner.
        share: weight of the image itself, in [0, 1]; its partner has the rest.
    """

    labels: Int64[Tensor, " B"]
    share: Float[Tensor, ""]


@dataclass(frozen=True)
class Batch(Tensors):
    """One batch as the data module yields it.

    Attributes:
        images: ``(B, 3, H, W)`` in [0, 1]; never normalised, every network owns its mean and deviation.
        labels: ``(B,)``.
        index: ``(B,)``, each sample's row in its split.
        view: which augmented version of the samples this is; 0 is the image itself (evaluation).
        split: the split that ``index`` counts in.
        teachers: cached outputs for these images; None if the loader does not read a cache.
        mixed: what the images are blended with; None without mixup.
    """

    images: Float[Tensor, "B 3 H W"]
    labels: Int64[Tensor, " B"]
    index: Int64[Tensor, " B"]
    view: int
    split: SplitName
    teachers: TeacherOutputs | None = None
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on another device (Lightning calls this method by name)."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (the torch ``DataLoader`` calls this by name)."""
        return self.map(lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The inputs of a loss term in one training step.

    Attributes:
        student: the student's outputs, with gradients.
        labels: ``(B,)``.
        epoch: the current epoch, from 0; for terms that change with time.
        teachers: the teachers' outputs without gradients; None if the student learns from labels alone.
        weights: ``(B, M)``, rows sum to 1, with gradients to a learned weighting; None without teachers.
        weighting_norm: squared L2 norm of the weighting's learned parameters; None where it has none.
        mixed: the labels that mixup has blended in; None without mixup.
        feature_weights: ``(B, M)`` for the teachers' features, where a method weighs them separately;
            None means ``weights``.
        prior: ``(B, M)``, the target of a learned weighting's regulariser; None is uniform.
    """

    student: ModelOutputs
    labels: Int64[Tensor, " B"]
    epoch: int
    teachers: TeacherOutputs | None = None
    weights: Float[Tensor, "B M"] | None = None
    weighting_norm: Float[Tensor, ""] | None = None
    mixed: Mixed | None = None
    feature_weights: Float[Tensor, "B M"] | None = None
    prior: Float[Tensor, "B M"] | None = None


@dataclass(frozen=True)
class OfferedFeatures:
    """The feature maps that a teacher's YAML offers to the loss terms, as module paths.

    Attributes:
        hint: the last map before the classifier; None where it offers none.
        stages: maps from first to last, for methods that read a network stage by stage.
    """

    hint: str | None = None
    stages: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorShapes:
    """The shapes that a loss term or weighting needs to create its learned parameters.

    Attributes:
        classes: K.
        teachers: the names of the M teachers in order.
        student: ``(C, H, W)`` of each tapped feature of the student.
        hints: ``(C, H, W)`` of each teacher feature, by flat name ``"<teacher>/<tap>"``, in teacher order.
        offered: per teacher the taps that its YAML offers, in teacher order.
    """

    classes: int
    teachers: tuple[str, ...] = ()
    student: Mapping[str, Shape] = field(default_factory=dict)
    hints: Mapping[str, Shape] = field(default_factory=dict)
    offered: Mapping[str, OfferedFeatures] = field(default_factory=dict)
