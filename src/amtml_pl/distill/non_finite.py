"""Steps with non-finite numbers: they are not taken, but reported and saved."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from amtml_pl.distill.doctor.gradients import gradient_norms
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.system.files import write_bytes
from amtml_pl.types import Batch, TeacherOutputs


class NonFiniteGuard(Callback):
    """Callback that stops a fit before non-finite gradients spoil the weights.

    Not in 16-mixed, where the scaler looks for those itself and leaves the step out.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Store the batch for a possible error message."""
        self.batch, self.batch_idx = batch, batch_idx

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Raise a UserError if a gradient that the optimiser will use is not finite."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if trainer.precision == "16-mixed" or all_finite([cast("Tensor", p.grad) for p in parameters]):
            return
        module = cast("StudentModule", pl_module)
        names = {id(p): name for name, p in module.named_parameters()}
        broken = [names[id(p)] for p in parameters if not torch.isfinite(cast("Tensor", p.grad)).all()]
        terms = terms_of_broken_gradients(module, self.batch)
        raise non_finite_step(module, self.batch, self.batch_idx, "gradient", [*terms, *broken[:5]])


def require_finite(
    module: StudentModule, loss: Tensor, values: Mapping[str, Tensor], batch: Batch, batch_idx: int
) -> None:
    """Raise a UserError with terms and samples if a loss is not finite."""
    if not torch.isfinite(loss):
        broken = [f"loss/{name} = {float(v.detach())}" for name, v in values.items() if not torch.isfinite(v)]
        terms = broken or ["the sum of the loss terms overflows"]
        raise non_finite_step(module, batch, batch_idx, "loss", terms)


def non_finite_step(
    module: StudentModule, share: Batch, batch_idx: int, what: str, broken: Sequence[str]
) -> UserError:
    """Return the error for a step that is not taken; save the step."""
    batch = share.map(module.gather_batch(share.labels))
    about = {"epoch": module.current_epoch, "step": module.global_step, "broken": list(broken)}
    file = Path(module.trainer.default_root_dir) / "not_finite.safetensors"
    if module.trainer.is_global_zero:
        save_reproduction(file, module, batch, about)
    return UserError(
        f"The {what} is not finite at epoch {module.current_epoch}, step {module.global_step}, "
        f"batch {batch_idx} ({', '.join(broken)}). The step is saved in {file} (view {batch.view}, "
        f"rows of the {batch.split} split: {batch.index.tolist()}).",
        fix="lower optimizer.lr or the coefficient of the loss term and repeat the command "
        "(docs/resume.md explains how to examine the step)",
    )


def terms_of_broken_gradients(module: StudentModule, batch: Batch) -> Iterator[str]:
    """Yield the loss terms whose gradient is not finite for the present batch."""
    for component in module.break_down(batch).components:
        if not all(map(math.isfinite, gradient_norms(component, module.trainable_groups()).values())):
            yield f"loss/{component.name}"


def all_finite(tensors: list[Tensor]) -> bool:
    """Return True if all numbers are finite, with one wait for the device.

    Their common norm is finite then, unless it overflows; in that case each tensor is checked.
    """
    if not tensors or bool(torch.isfinite(nn.utils.get_total_norm(tensors))):
        return True
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def save_reproduction(file: Path, module: StudentModule, batch: Batch, about: Mapping[str, Any]) -> None:
    """Write what `load_reproduction` needs to compute a step again."""
    tensors = {f"state/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {"images": batch.images, "labels": batch.labels, "index": batch.index}
    facts = {**about, "view": batch.view, "split": batch.split}
    if batch.teachers is not None:
        facts["teachers"] = list(batch.teachers.names)
        tensors["logits"] = batch.teachers.logits
        tensors |= {f"hints/{name}": hint for name, hint in batch.teachers.hints.items()}
    if batch.mixed is not None:
        tensors |= {f"mixed/{name}": tensor for name, tensor in vars(batch.mixed).items()}
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(file, save(whole, {"about": json.dumps(facts)}))


def load_reproduction(file: Path, module: nn.Module) -> Batch:
    """Restore a module to the state that broke; return the batch for ``module.break_down``."""
    with safe_open(file, framework="pt") as stored:
        tensors: dict[str, Tensor] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        about = json.loads(stored.metadata()["about"])
    module.load_state_dict(below("state/", tensors))
    images, labels, index = tensors["images"], tensors["labels"], tensors["index"]
    batch = Batch(images, labels=labels, index=index, view=about["view"], split=about["split"])
    if "teachers" not in about:
        return batch
    outputs = TeacherOutputs(tuple(about["teachers"]), tensors["logits"], below("hints/", tensors))
    return replace(batch, teachers=outputs)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a name prefix, by the rest of the name."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
