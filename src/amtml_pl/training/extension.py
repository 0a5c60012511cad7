"""Continue a completed run up to more epochs, as a run of its own (``extend``)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from omegaconf import DictConfig
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from amtml_pl.config.key_roles import changing_callbacks, keys_along
from amtml_pl.config.overrides import STARTS_AGAIN, key_of
from amtml_pl.config.teacher_recipe import leaves_of
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.files import replacing, write_bytes
from amtml_pl.system.plain_yaml import read_plain_yaml
from amtml_pl.training.settings import Settings
from amtml_pl.training.summary import override

# Keys that an extension may change. The digest of the images stands for the keys of their source.
FREE = ("trainer.max_epochs", "scheduler", "optimizer", "extend", "dataset.source")
# The digest of a teacher's weights stands for these keys of it.
OF_WEIGHTS = ("weights", "recipe", "recipe_overrides", "seed")

# How many differences a message has, and the beginnings of those that come first.
SHOWN = 8
TELLING = ("experiment=", "dataset.", "loss.", "weighting.", "loop.")


@dataclass(frozen=True)
class Origin:
    """The completed run that a run extends."""

    folder: RunFolder
    record: RunRecord

    @property
    def epochs(self) -> int:
        """Return the number of its epochs."""
        return int(self.record.budget["epochs"] or 0)


def find_origin(settings: Settings, command: str, experiment: str | None) -> Origin | None:
    """Return the run that ``extend`` names; None without one.

    Args:
        settings: of the run that extends it.
        command: what was typed, for messages.
        experiment: its name, for the message of a run that is not the same.

    Raises:
        UserError: if it has not completed, is not shorter, was changed, or has other settings.
    """
    if settings.extend is None:
        return None
    folder = RunFolder(settings.extend)
    record = folder.record()
    if record is None:
        what = f"extend={folder.path} is not a run folder (it has no run.json)."
        raise UserError(what, fix="set extend to the folder of a completed run")
    if record.status != "completed":
        what = f"The run in {folder.path} cannot be extended (got {record.status}, expected completed)."
        raise UserError(what, fix=f"complete the run: {record.command}")
    origin, epochs = Origin(folder, record), settings.trainer.epochs
    if epochs <= origin.epochs:
        raise UserError(
            f"trainer.max_epochs={epochs} does not extend the run in {folder.path} (expected more than its "
            f"{origin.epochs} epochs).",
            fix=f"trainer.max_epochs={2 * origin.epochs}",
        )
    folder.refuse_changed(record, folder.config_file, folder.last_checkpoint)
    if found := [*differences(settings, origin)]:
        if experiment is not None and record.experiment not in (None, experiment):
            found.insert(0, f"experiment={experiment} (expected {record.experiment})")
        listed = "".join(f"\n  - {each}" for each in most_telling(found))
        raise UserError(
            f"The run in {folder.path} has other settings, so that this command cannot extend it "
            f"(only the scheduler and the optimizer may differ):{listed}",
            fix=extending_command(origin, epochs, command, found),
        )
    return origin


def differences(settings: Settings, origin: Origin) -> Iterator[str]:
    """Yield the settings in which a command differs from the run that it extends."""
    recorded = recorded_settings(origin.folder)
    # The number that was typed, as keys refer to it; early stopping may have trained fewer epochs.
    config = of_length(settings.config, recorded.get("trainer", {}).get("max_epochs", origin.epochs))
    own, theirs = (
        dict(leaves_of({**tree, "callbacks": changing_callbacks(tree.get("callbacks", {}))}, ""))
        for tree in (yaml.safe_load(replace(settings, config=config).text()), recorded)
    )
    for path in dict.fromkeys([*own, *theirs]):
        here, there = own.get(path), theirs.get(path)
        if here != there and not (here in (None, False) and there in (None, False)) and counts(path, config):
            yield f"{path}={here} (expected {there})"


def most_telling(found: Sequence[str]) -> list[str]:
    """Return at most eight differences, data and method first, and the number of others."""
    first = sorted(found, key=lambda each: not each.startswith(TELLING))
    left = len(first) - SHOWN
    return first if left <= 0 else [*first[:SHOWN], f"and {left} more"]


def recorded_settings(folder: RunFolder) -> dict[str, Any]:
    """Return the settings that a run has recorded, as plain values."""
    try:
        return dict(read_plain_yaml(folder.config_file))
    except (TypeError, ValueError) as error:
        fix = "extend another run"
        raise UserError(
            f"{folder.config_file} is not the configuration of a run: {error}.", fix=fix
        ) from error


def of_length(config: DictConfig, epochs: int) -> DictConfig:
    """Return the configuration of the same run with another number of epochs."""
    changed = deepcopy(config)
    changed.trainer.max_epochs = epochs
    return changed


def counts(path: str, config: DictConfig) -> bool:
    """Return True if an extension must have its origin's value of a key."""
    if any(f"{path}.".startswith(f"{free}.") for free in FREE):
        return path == "optimizer._target_"  # the state of another optimiser would not fit
    unread = {"never", "readers", *(() if config.teacher else ("teachers", "cached"))}
    if any(key is not None and key.identity in unread for key in keys_along(path)):
        return False
    node, _, rest = path.partition(".")
    if node == "teacher":
        return rest.partition(".")[2].partition(".")[0] not in OF_WEIGHTS
    return node != "coef" or rest in config.loss


def extending_command(origin: Origin, epochs: int, command: str, differing: Sequence[str]) -> str:
    """Return a run's command that extends it, with scheduler and optimizer as typed.

    Args:
        origin: the run to extend.
        epochs: of the extension.
        command: what was typed.
        differing: settings that make the typed command fail, as `differences` yields them.
    """
    typed = shlex.split(command)
    other_class = any(each.startswith("optimizer._target_=") for each in differing)
    free = ("scheduler",) if other_class else ("scheduler", "optimizer")
    chosen = {name: [word for word in typed if key_of(word).partition(".")[0] == name] for name in free}
    replaced = {"trainer.max_epochs", "extend", *STARTS_AGAIN}
    words = [
        word
        for word in shlex.split(origin.record.command)
        if (key := key_of(word)) not in replaced and not chosen.get(key.partition(".")[0])
    ]
    own = [word for name in free for word in chosen[name]]
    return (
        f"{shlex.join([*words, *own])} trainer.max_epochs={epochs} {override('extend', origin.folder.path)}"
    )


def begin_extension(origin: Origin, module: StudentModule, folder: RunFolder) -> None:
    """Write the first checkpoint of an extension: its origin's last one, with the new schedule.

    Weights, optimiser state, epochs, selection and costs continue. The learning rate is that of the new
    schedule at this epoch, as the new schedule has been stepped through the epochs of the origin.
    """
    last, best = origin.folder.last_checkpoint, origin.folder.best_checkpoint
    checkpoint = read_checkpoint(last, module.state_dict())
    optimizers, schedules = stepped(module, origin.epochs)
    checkpoint["lr_schedulers"] = [schedule.state_dict() for schedule in schedules]
    for state, optimizer in zip(checkpoint["optimizer_states"], optimizers, strict=True):
        for saved, fresh in zip(state["param_groups"], optimizer.param_groups, strict=True):
            saved.update({name: value for name, value in fresh.items() if name != "params"})
    for state in checkpoint["callbacks"].values():
        if "stopping_reason" in state:  # of a fit that stopped early; asked to continue, it waits anew
            state.update(stopping_reason=EarlyStoppingReason.NOT_STOPPED.value, wait_count=0)
    if best.is_file():
        write_bytes(folder.best_checkpoint, best.read_bytes())
    with replacing(folder.last_checkpoint, mark="new") as temporary:
        torch.save(checkpoint, temporary)


def stepped(module: StudentModule, epochs: int) -> tuple[list[Optimizer], list[LRScheduler]]:
    """Return new optimisers and schedules of a module, stepped through some epochs."""
    made: Any = module.configure_optimizers()
    steps = epochs
    if isinstance(made, dict):
        own = made.get("lr_scheduler")
        optimizers, schedules = [made["optimizer"]], [] if own is None else [own["scheduler"]]
        steps *= module.steps_per_epoch if own is not None and own["interval"] == "step" else 1
    else:
        optimizers, schedules = made
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.step()  # changes nothing without gradients
        for schedule in schedules:
            schedule.step()
    return optimizers, schedules
