"""Load the checkpoints of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.checkpoint_file import read_checkpoint, refuse_other_network

CheckpointName: TypeAlias = Literal["best", "last"]


def load_checkpoint(
    module: nn.Module,
    name: Literal["student", "weighting"],
    folder: RunFolder,
    record: RunRecord,
    checkpoint: CheckpointName,
) -> None:
    """Load a part of a checkpoint into a module, which is then in evaluation mode.

    Raises:
        UserError: if the checkpoint is missing, damaged, changed after the run, or of another network.
    """
    file, again = checkpoint_file(folder, record, checkpoint), f"{record.command} force=true"
    state = read_checkpoint(file, fix=again)["state_dict"]
    folder.refuse_changed(record, file)
    prefix = f"{name}."
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    refuse_other_network(own, module.state_dict(), file, again)
    module.load_state_dict(own)
    module.requires_grad_(False).eval()


def checkpoint_file(folder: RunFolder, record: RunRecord, checkpoint: CheckpointName) -> Path:
    """Return the path of a checkpoint; a UserError if it is missing or unknown."""
    files = {"best": folder.best_checkpoint, "last": folder.last_checkpoint}
    if checkpoint not in files:
        what = f"The checkpoint is unknown (got {checkpoint!r}, expected best or last)."
        raise UserError(what, fix="use checkpoint=best or checkpoint=last")
    there = [name for name, file in files.items() if file.is_file()]
    if checkpoint not in there:
        raise UserError(
            f"The checkpoint {files[checkpoint]} does not exist.",
            fix=f"use checkpoint={there[0]}" if there else f"{record.command} force=true",
        )
    return files[checkpoint]
