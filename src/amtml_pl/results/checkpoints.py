"""The checkpoints of a finished run, and what each holds of the training module's own modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.checkpoint_file import read_checkpoint

Which: TypeAlias = Literal["best", "last"]


@dataclass(frozen=True)
class RecordedCheckpoints:
    """What a run has saved.

    Attributes:
        folder: the run's.
        record: what ``run.json`` says.
    """

    folder: RunFolder
    record: RunRecord

    @property
    def again(self) -> str:
        """The command that repeats the run."""
        return f"{self.record.command} force=true"

    def tensors(self, checkpoint: Which, module: str) -> dict[str, Tensor]:
        """The tensors of one of the training module's own modules, ``student`` or ``weighting``.

        Raises:
            UserError: if the checkpoint is missing, damaged or not the one that the run has left.
        """
        state: dict[str, Tensor] = read_checkpoint(self.file(checkpoint), fix=self.again)["state_dict"]
        self.folder.refuse_changed(self.record, self.file(checkpoint))
        prefix = f"{module}."
        return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}

    def file(self, checkpoint: Which) -> Path:
        """Where a checkpoint lies.

        Raises:
            UserError: if it is not there, or there is no such choice.
        """
        files = {"best": self.folder.best_checkpoint, "last": self.folder.last_checkpoint}
        if checkpoint not in files:
            raise UserError(f"There is no checkpoint {checkpoint!r}.", fix=f"one of {', '.join(files)}")
        if not files[checkpoint].is_file():
            there = [name for name, file in files.items() if file.is_file()]
            raise UserError(
                f"There is no checkpoint {files[checkpoint]}.",
                fix=f"checkpoint={there[0]}" if there else self.again,
            )
        return files[checkpoint]
