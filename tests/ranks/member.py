"""One process of a run: what it has trained on and what came of it, written down for a test to compare.

Batch norm stays in evaluation mode where ``--frozen-norm`` is the first argument: its statistics are of a
process's own share otherwise, on the CPU.
"""

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from amtml_pl.config import config_directory
from amtml_pl.pipeline import execute
from amtml_pl.ranks import rank
from amtml_pl.runs import RunFolder
from amtml_pl.student_module import StudentModule


def freeze_norms(module):
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.eval()


def main(folder: Path, frozen_norm: bool, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    seen, losses, state = [], [], {}

    class Observed(StudentModule):
        """Takes the place of what every module inherits."""

        def on_fit_start(self):
            for noted in (seen, losses, state):
                noted.clear()  # teachers may have been trained first
            original["on_fit_start"](self)

        def on_train_batch_start(self, batch, batch_idx):
            if frozen_norm:
                freeze_norms(self)
            seen.append((batch.view, batch.index.tolist()))

        def log_losses(self, step, values, total):
            losses.append({**{name: float(value) for name, value in values.items()}, "total": float(total)})
            original["log_losses"](self, step, values, total)

        def on_train_end(self):
            state.update({name: tensor.clone() for name, tensor in self.state_dict().items()})

    own = {name: method for name, method in vars(Observed).items() if callable(method)}
    original = {name: getattr(StudentModule, name) for name in own}
    for name, method in own.items():
        setattr(StudentModule, name, method)
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = compose("train", overrides=overrides)
        record = execute(config, RunFolder(folder / "run"), None, "the command")
    noted = {"seen": seen, "losses": losses, "state": state, "metrics": record["metrics"]}
    torch.save(noted, folder / f"{rank()}.pt")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--frozen-norm"]
    main(Path(words[0]), "--frozen-norm" in sys.argv, words[1:])
