"""Run frozen teachers on batches, and measure their accuracy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.models.classifier_head import ClassMap, in_class_order
from amtml_pl.models.feature_map import MapReading
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.state import evaluation_mode
from amtml_pl.models.taps import DEFAULT, TappedNetwork, tap_shapes
from amtml_pl.models.teacher_head import LinearHead, NoHead
from amtml_pl.system.files import replacing, short_digest
from amtml_pl.system.records import Sealed, Share, as_json, read_record
from amtml_pl.types import Batch, ModelOutputs, Shape, SplitName, TeacherOutputs


class LiveTeachers:
    """A teacher source that runs every teacher on every batch.

    It is not an ``nn.Module``, so that no module gets its parameters.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.names: tuple[str, ...] = tuple(teacher.name for teacher in teachers)
        if not teachers or len({*self.names}) < len(self.names):
            raise UserError(
                "The list of teachers is empty or repeats a name "
                f"(got {list(self.names)}, expected one or more different names).",
                fix="select teachers with different names, such as 'teacher=[resnet32,resnet56]'",
            )
        self.teachers = tuple(teachers)

    def to(self, device: torch.device | str) -> LiveTeachers:
        """Move the teachers to a device and return them."""
        for teacher in self.teachers:
            teacher.network.to(device)
        return self

    def __call__(self, batch: Batch) -> TeacherOutputs:
        """Return logits and hints of all teachers, without gradients, on the batch's device."""
        outputs = [teacher(batch.images) for teacher in self.teachers]
        pairs = zip(self.names, outputs, strict=True)
        hints = {f"{name}/{tap}": value for name, output in pairs for tap, value in output.features.items()}
        return TeacherOutputs(self.names, torch.stack([output.logits for output in outputs], dim=1), hints)


class Teacher:
    """A frozen, trained network in evaluation mode.

    Args:
        name: in YAML, shards, logs and messages; without "/", which separates it from a tap.
        network: frozen here.
        class_map: position c holds the index of the output that means class c of the data, or None if the
            teacher does not know that class; None if the outputs are the classes.
        pool: side of the grid that larger features are average-pooled to before use; None keeps them.
        hints: readings of the taps, each as in `models.hint.HintSpec`; None reads every tap unchanged.
    """

    def __init__(
        self,
        name: str,
        network: TappedNetwork,
        class_map: ClassMap = None,
        pool: int | None = None,
        hints: Sequence[str] | None = None,
    ) -> None:
        if not name or "/" in name:
            raise UserError(
                f"The name of a teacher is not valid (got {name!r}, expected a non-empty name without '/').",
                fix="use a name without '/' for the key below teacher, and for its YAML file",
            )
        self.name = name
        self.network = network.requires_grad_(False).eval()
        self.class_map = None if class_map is None else tuple(class_map)
        self.pool = pool
        self.readings = tuple(HintSpec.parse(hint) for hint in (network.taps if hints is None else hints))
        outputs = [output for output in self.class_map or () if output is not None]
        if self.class_map is not None and len(outputs) < 2:
            raise UserError(
                f"teacher.{name}.class_map has too few classes (got {len(outputs)}, expected 2 or more).",
                fix=f"set teacher.{name}.class_map to the output index of each class that the teacher knows",
            )
        if repeated := sorted({output for output in outputs if outputs.count(output) > 1}):
            raise UserError(
                f"teacher.{name}.class_map contains an output index more than once (repeated: {repeated}).",
                fix=f"set teacher.{name}.class_map to a different output index for each class",
            )

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> ModelOutputs:
        """Return logits ``(B, K)`` in the data's class order, and features; detached.

        The logits of classes that the teacher does not know are minus infinity.
        """
        if any(module.training for module in self.network.modules()):
            raise RuntimeError(f"Teacher {self.name!r} is in training mode (expected evaluation mode).")
        with torch.inference_mode():
            output = self.network(images)
        logits = in_class_order(output.logits, self.class_map)
        features = {str(r): r(output.features[r.tap], self.pool) for r in self.readings}
        outputs = ModelOutputs(logits, features)
        # Copied outside: autograd refuses to save inference tensors for the student's backward. Into one
        # layout: sums over another one would differ in their last bits from cached ones.
        return outputs.map(lambda tensor: tensor.clone(memory_format=torch.contiguous_format))

    @property
    def known_classes(self) -> list[int] | None:
        """Return the classes of the data that the teacher knows; None for all of them."""
        if self.class_map is None or None not in self.class_map:
            return None
        return [place for place, output in enumerate(self.class_map) if output is not None]

    def hint_shapes(self, image_size: int) -> dict[str, Shape]:
        """Return ``(C, H, W)`` of each hint, by flat name ``"<teacher>/<tap>"``."""
        _, taps = tap_shapes(self.network, image_size)
        return {f"{self.name}/{r}": r.shape(taps[r.tap], self.pool) for r in self.readings}

    def check_classes(self, num_classes: int, image_size: int) -> None:
        """Raise a UserError if the outputs or the class map do not fit the data."""
        outputs, _ = tap_shapes(self.network, image_size)
        if isinstance(self.network.head, LinearHead) and self.network.head.linear is None:
            return  # it will be fitted to the classes of the data
        found = outputs if self.class_map is None else len(self.class_map)
        if found != num_classes:
            counted = "outputs" if self.class_map is None else "class_map entries"
            raise UserError(
                f"Teacher {self.name!r} has the wrong number of {counted} "
                f"(got {found}, expected {num_classes}, one per class).",
                fix=f"list the output index of each class: 'teacher.{self.name}.class_map=[INDEX,INDEX]'",
            )
        known = [output for output in self.class_map or () if output is not None]
        if wrong := [output for output in known if not 0 <= output < outputs]:
            raise UserError(
                f"teacher.{self.name}.class_map contains invalid output indices "
                f"(got {wrong[:5]}, expected 0 to {outputs - 1}).",
                fix=f"correct these indices in teacher.{self.name}.class_map",
            )


def build_teacher(
    name: str,
    network: nn.Module,
    hints: Sequence[str] = (),
    *,
    mean: Sequence[float],
    std: Sequence[float],
    input_size: int | None,
    class_map: ClassMap,
    pool: int | None,
    reading: MapReading = DEFAULT,
    head: NoHead | LinearHead | None = None,
) -> Teacher:
    """Return a teacher around a network; the arguments are those of `Teacher` and `TappedNetwork`."""
    taps = [HintSpec.parse(hint).tap for hint in hints]
    if head is not None and head.tap is not None:
        taps.append(head.tap)
    tapped = TappedNetwork(
        network, mean=mean, std=std, taps=taps, input_size=input_size, reading=reading, head=head
    )
    return Teacher(name, tapped, class_map=class_map, pool=pool, hints=hints)


def measure_accuracy(network: TappedNetwork | Teacher, batches: Iterable[Batch]) -> float:
    """Return the share of images classified correctly; no images are a UserError.

    Only images of classes that a teacher knows count.
    """
    module = network.network if isinstance(network, Teacher) else network
    known = network.known_classes if isinstance(network, Teacher) else None
    right, total = 0, 0
    with evaluation_mode(module), torch.no_grad():
        for batch in batches:
            batch = batch.to(module.mean.device)
            right += int((network(batch.images).logits.argmax(dim=1) == batch.labels).sum())
            total += len(batch) if known is None else sum(label in known for label in batch.labels.tolist())
    if total == 0:
        raise UserError("The accuracy cannot be measured without images.", fix="set data.val_size=0.1")
    return right / total


class MeasuredAccuracy(Sealed):
    """The accuracy of a teacher on given images."""

    accuracy: Share
    identity: dict[str, Any]


def measured_accuracy(
    load: Callable[[], Teacher], batches: Iterable[Batch], folder: Path, identity: Mapping[str, Any]
) -> float:
    """Return a teacher's accuracy in [0, 1], measured once and then read from a record."""
    text = json.dumps(identity, sort_keys=True)
    path = folder / f"accuracy-{short_digest(text, digits=16)}.json"
    with suppress(UserError):  # a missing or damaged record is measured again
        return read_record(MeasuredAccuracy, path, fix=f"rm '{path}'").accuracy
    accuracy = measure_accuracy(load(), batches)
    with replacing(path) as temporary:  # several runs may measure the same teacher
        temporary.write_text(as_json(MeasuredAccuracy(accuracy=accuracy, identity=dict(identity))))
    return accuracy


def check_accuracy(name: str, accuracy: float, min_accuracy: float, split: SplitName) -> None:
    """Raise a UserError if a teacher is weaker than expected on a split."""
    if accuracy < min_accuracy:
        raise UserError(
            f"The accuracy of teacher {name!r} is too low on the {split} split (got {accuracy:.4f}, expected "
            f"at least {min_accuracy:.4f}). The given mean, std, class_map or network weights are probably "
            "wrong.",
            fix=f"correct the keys of teacher.{name}, or accept this accuracy: teacher.{name}.min_accuracy=0",
        )


def weights_digest(module: nn.Module) -> str:
    """Return a SHA-256 of a module's ``state_dict``: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)  # as bytes: numpy has no bfloat16
    return digest.hexdigest()
