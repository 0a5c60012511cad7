"""One process of some runs; it writes its batches, losses and last state for a test to compare.

``python member.py FOLDER METHOD,METHOD… [--exact] OVERRIDE…`` runs each method in ``FOLDER/METHOD``.

With ``--exact`` batch norm stays in evaluation mode, since its statistics are of a process's own share
otherwise, on the CPU; and numbers are of float64, since training lets every rounding grow.
"""

import sys
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from amtml_pl.config.paths import config_directory
from amtml_pl.distill.module import StudentModule
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.ranks import rank
from amtml_pl.training.pipeline import execute
from amtml_pl.training.settings import settings_of
from amtml_pl.training.stages import RunRequest


def freeze_norms(module):
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.eval()


ALONE = ("dml", "dml_published")  # have no teachers


class Notes:
    """The batches of a run, its losses, and its last state."""

    def __init__(self):
        self.seen, self.losses, self.state = [], [], {}


def observe(notes: Notes, exact: bool) -> None:
    """Replace methods of the base of all training modules, for the rest of the process."""

    class Observed(StudentModule):
        def setup(self, stage):
            if exact:
                self.double()

        def on_fit_start(self):
            notes.__init__()  # teachers may have been trained first
            original["on_fit_start"](self)

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch.map(lambda t: t.double() if t.is_floating_point() else t) if exact else batch

        def on_train_batch_start(self, batch, batch_idx):
            original["on_train_batch_start"](self, batch, batch_idx)
            if exact:
                freeze_norms(self)
            notes.seen.append((batch.view, batch.index.tolist()))

        def update_metrics(self, step, batch, values, total):
            notes.losses.append({name: float(value) for name, value in {**values, "total": total}.items()})
            original["update_metrics"](self, step, batch, values, total)

        def on_train_end(self):
            notes.state.update({name: tensor.clone() for name, tensor in self.state_dict().items()})

    own = {name: method for name, method in vars(Observed).items() if callable(method)}
    original = {name: getattr(StudentModule, name) for name in own}
    for name, method in own.items():
        setattr(StudentModule, name, method)


def main(folder: Path, methods: list[str], exact: bool, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    notes = Notes()
    observe(notes, exact)
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        for method in methods:
            words = [word for word in overrides if method not in ALONE or not word.startswith("teacher")]
            config = compose("train", overrides=["experiment=digits", f"method={method}", *words])
            request = RunRequest(settings_of(config), RunFolder(folder / method), method, "the command")
            record = execute(request)
            torch.save({**vars(notes), "metrics": record.metrics}, folder / f"{method}-{rank()}.pt")


if __name__ == "__main__":
    place, wanted, *words = sys.argv[1:]
    main(Path(place), wanted.split(","), "--exact" in words, [word for word in words if word != "--exact"])
