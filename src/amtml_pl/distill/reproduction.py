"""The step at which numbers broke, kept whole: the batch, the teachers' outputs and all that was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from amtml_pl.runs.folder import write_bytes
from amtml_pl.types import Batch, TeacherOutputs


def save_reproduction(file: Path, module: nn.Module, batch: Batch, about: Mapping[str, Any]) -> None:
    """Writes what it takes to compute a step again.

    Args:
        file: a safetensors file.
        module: whose state is kept.
        batch: that it stumbled over, with its teachers' outputs where they are read from a cache.
        about: plain values, such as the epoch and the step.
    """
    tensors = {f"state/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {"images": batch.images, "labels": batch.labels, "index": batch.index}
    facts = {**about, "view": batch.view, "split": batch.split}
    if batch.teachers is not None:
        facts["teachers"] = list(batch.teachers.names)
        tensors["logits"] = batch.teachers.logits
        tensors |= {f"hints/{name}": hint for name, hint in batch.teachers.hints.items()}
    if batch.mixed is not None:
        tensors |= {"mixed/labels": batch.mixed.labels, "mixed/share": batch.mixed.share}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(file, save(whole, {"about": json.dumps(facts)}))


def load_reproduction(file: Path, module: nn.Module) -> Batch:
    """Puts a module of the same run in the state that broke.

    Returns:
        The batch: ``module.dissect(batch)`` then gives the step term by term.
    """
    with safe_open(file, framework="pt") as stored:
        tensors: dict[str, Tensor] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        about = json.loads(stored.metadata()["about"])
    module.load_state_dict(below("state/", tensors))
    batch = Batch(tensors["images"], tensors["labels"], tensors["index"], about["view"], about["split"])
    if "teachers" in about:
        outputs = TeacherOutputs(tuple(about["teachers"]), tensors["logits"], below("hints/", tensors))
        batch = replace(batch, teachers=outputs)
    return batch


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of the name."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
