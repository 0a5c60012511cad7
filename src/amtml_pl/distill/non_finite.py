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

from amtml_pl.distill import step_watch
from amtml_pl.distill.doctor.gradients import gradient_norms
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.step_watch import NotedStep, Position, StepWatch, gradients_of
from amtml_pl.errors import UserError
from amtml_pl.system.files import write_bytes
from amtml_pl.types import Batch, TeacherOutputs


class NonFiniteGuard(Callback):
    """Callback that stops a fit before non-finite numbers spoil the weights.

    A fit on the CPU stops before the optimiser's step. On an accelerator the step is left out, and the fit
    stops at most `step_watch.MOST_STEPS` steps later, before weights are evaluated or saved. In 16-mixed
    the scaler looks for non-finite gradients itself and leaves the step out.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Watch the steps of an accelerator."""
        device = pl_module.device
        cast("StudentModule", pl_module).watch = (
            None if device.type in step_watch.AT_ONCE else StepWatch(device)
        )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Store the batch for a possible error message; of a watched one, its samples."""
        module = cast("StudentModule", pl_module)
        if module.watch is None:
            self.batch, self.batch_idx = batch, batch_idx
        else:
            module.watch.begin(position(module, batch_idx), batch.index)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Leave non-finite gradients out if the step is watched, or raise a UserError."""
        module = cast("StudentModule", pl_module)
        if trainer.precision == "16-mixed":
            return
        if module.watch is not None:
            module.watch.protect_weights(optimizer)
            return
        gradients = gradients_of(optimizer)
        if all_finite(gradients):
            return
        broken = {id(gradient) for gradient in gradients if not torch.isfinite(gradient).all()}
        names = [name for name, p in module.named_parameters() if id(p.grad) in broken]
        terms = terms_of_broken_gradients(module, self.batch)
        at = position(module, self.batch_idx)
        raise non_finite_step(module, self.batch, at, "gradient", [*terms, *names[:5]])

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """End a watched step; check now and then, and after an epoch's last batch."""
        module = cast("StudentModule", pl_module)
        if module.watch is not None:
            module.watch.end()
            last = batch_idx + 1 == trainer.num_training_batches
            if last or len(module.watch.steps) >= step_watch.MOST_STEPS:
                check_watched(module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the watched steps before their weights are evaluated."""
        check_watched(cast("StudentModule", pl_module))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the watched steps before their weights are saved."""
        check_watched(cast("StudentModule", pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the watch."""
        cast("StudentModule", pl_module).watch = None


def check_watched(module: StudentModule) -> None:
    """Raise a UserError for a broken watched step; wait for the device."""
    if module.watch is not None and (broken := module.watch.first_broken()):
        raise broken_step(module, broken)


def broken_step(module: StudentModule, noted: NotedStep) -> UserError:
    """Return the error for a watched step, whose batch is made again."""
    loader = cast("Any", module.trainer.train_dataloader)
    batch = loader.dataset[noted.index.cpu()].to(module.device)
    for loss, values in noted.losses:
        if terms := broken_terms(loss, values):
            return non_finite_step(module, batch, noted.at, "loss", terms)
    module.train()
    terms = [*terms_of_broken_gradients(module, batch)] or ["the sum of the terms"]
    return non_finite_step(module, batch, noted.at, "gradient", terms)


def position(module: StudentModule, batch_idx: int) -> Position:
    """Return the place of the module's present step."""
    return Position(module.current_epoch, module.global_step, batch_idx)


def require_finite(
    module: StudentModule, loss: Tensor, values: Mapping[str, Tensor], batch: Batch, batch_idx: int
) -> None:
    """Note a watched step's loss; of another, raise a UserError if it is not finite."""
    if module.watch is not None:
        module.watch.note_loss(loss, values)
    elif terms := broken_terms(loss, values):
        raise non_finite_step(module, batch, position(module, batch_idx), "loss", terms)


def broken_terms(loss: Tensor, values: Mapping[str, Tensor]) -> list[str]:
    """Return what makes a loss not finite; nothing if it is finite."""
    if torch.isfinite(loss):
        return []
    broken = [f"loss/{name} = {float(v.detach())}" for name, v in values.items() if not torch.isfinite(v)]
    return broken or ["the sum of the loss terms overflows"]


def non_finite_step(
    module: StudentModule, share: Batch, at: Position, what: str, broken: Sequence[str]
) -> UserError:
    """Return the error for a step that is not taken; save the step."""
    batch = share.map(module.gather_batch(share.labels))
    about = {"epoch": at.epoch, "step": at.step, "broken": list(broken)}
    file = Path(module.trainer.default_root_dir) / "not_finite.safetensors"
    if module.trainer.is_global_zero:
        save_reproduction(file, module, batch, about)
    return UserError(
        f"The {what} is not finite at epoch {at.epoch}, step {at.step}, "
        f"batch {at.batch_idx} ({', '.join(broken)}). The step is saved in {file} (view {batch.view}, "
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
