"""Load the checkpoints of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.checkpoint_file import read_checkpoint, refuse_other_network

Which: TypeAlias = Literal["best", "last"]


@dataclass(frozen=True)
class RecordedCheckpoints:
    """The checkpoints in a run's folder."""

    folder: RunFolder
    record: RunRecord

    def load(self, module: nn.Module, name: Literal["student", "weighting"], checkpoint: Which) -> None:
        """Load a checkpoint's tensors into a submodule, and set it to evaluation mode.

        Raises:
            UserError: if the checkpoint is missing, damaged, changed after the run, or of another network.
        """
        file, again = self.file(checkpoint), f"{self.record.command} force=true"
        state = read_checkpoint(file, fix=again)["state_dict"]
        self.folder.refuse_changed(self.record, file)
        prefix = f"{name}."
        own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        refuse_other_network(own, module.state_dict(), file, again)
        module.load_state_dict(own)
        module.requires_grad_(False).eval()

    def file(self, checkpoint: Which) -> Path:
        """Return the path of a checkpoint.

        Raises:
            UserError: if it is missing, or the choice is unknown.
        """
        files = {"best": self.folder.best_checkpoint, "last": self.folder.last_checkpoint}
        if checkpoint not in files:
            raise UserError(f"There is no checkpoint {checkpoint!r}.", fix=f"one of {', '.join(files)}")
        if not files[checkpoint].is_file():
            there = [name for name, file in files.items() if file.is_file()]
            raise UserError(
                f"There is no checkpoint {files[checkpoint]}.",
                fix=f"checkpoint={there[0]}" if there else f"{self.record.command} force=true",
            )
        return files[checkpoint]
