"""The table of a run's epochs, which a resumed run goes on with."""

import os
import subprocess
import sys

import pytest
import pytorch_lightning as pl

from amtml_pl.callbacks import EpochTable
from amtml_pl.errors import UserError
from amtml_pl.fitting import weights_of_last_epoch

GO_ON = """
import sys
from pathlib import Path
import pytorch_lightning as pl
from amtml_pl.callbacks import EpochTable
from amtml_pl.fitting import weights_of_last_epoch

file = Path(sys.argv[1])
trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
trainer.fit_loop.epoch_progress.current.completed = 1
table = EpochTable(file)
table.on_train_start(trainer, pl.LightningModule())
print(ascii(table.rows))
print(ascii(weights_of_last_epoch(file)))
"""


@pytest.mark.slow
def test_teachers_named_beyond_ascii_are_read_again_in_a_locale_without_them(tmp_path):
    """The table is written as UTF-8 wherever a run begins, and may be resumed elsewhere."""
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,weight/größe\n0,0.25\n1,0.75\n", encoding="utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", GO_ON, str(file)], env=plain, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept, last = done.stdout.splitlines()[-2:]
    assert kept == ascii([{"epoch": "0", "weight/größe": "0.25"}])
    assert last == ascii({"weight/größe": 0.75})


def resumed(file, epoch):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit_loop.epoch_progress.current.completed = epoch
    table = EpochTable(file)
    table.on_train_start(trainer, pl.LightningModule())
    return table.rows


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (b"", "it is empty"),
        (b"Epoch,val/acc\n0,0.5\n1,0.5\n", "its first column is 'Epoch', expected 'epoch'"),
        (b"epoch,val/acc\n0,0.5\n1,\xff\n", "can't decode byte 0xff"),
        (b"epoch,val/acc\n0,0.5\none,0.5\n", "'one' is no epoch"),
        (b"epoch,val/acc\n0,0.5\n1\n", "a row of 1 cells, expected 2"),
        (b'epoch,val/acc\n0,0.5\n1,"0.5\n', "unexpected end of data"),
        (b"epoch,val/acc\n0,0.5\n", "it has no row of epoch 1, after which the run goes on"),
        (b"epoch,val/acc\n", "it has no row of epoch 1, after which the run goes on"),
    ],
)
def test_a_damaged_table_of_epochs_is_refused_with_what_mends_it(tmp_path, content, how):
    file = tmp_path / "metrics.csv"
    file.write_bytes(content)
    with pytest.raises(UserError) as said:
        resumed(file, 2)
    assert f"{file} is damaged" in str(said.value)
    assert how in str(said.value)
    assert f"rm '{file}'" in str(said.value)
    file.unlink()
    assert resumed(file, 2) == []  # as the message says


@pytest.mark.parametrize("content", ["", "epoch,weight/a\n", "epoch,weight/a\n0,a half\n", "step,weight/a\n"])
def test_the_last_weights_are_not_taken_from_a_damaged_table(tmp_path, content):
    file = tmp_path / "metrics.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        weights_of_last_epoch(file)
