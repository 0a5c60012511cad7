"""Callbacks restore their table, cost and best epoch from a checkpoint, also in a moved folder."""

import csv

import pytest
import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from amtml_pl.distill.timing import Spending
from amtml_pl.training.callbacks import Accounts, BestCheckpoint, EpochTable, epochs_in

ROWS = [{"epoch": 0, "step": 4, "weight/größe": 0.25}, {"epoch": 1, "step": 8, "weight/größe": 0.1 + 0.2}]


def resumed(file, rows):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    table = EpochTable(file)
    table.load_state_dict({"rows": rows})
    table.on_fit_start(trainer, pl.LightningModule())
    return table


@pytest.mark.parametrize("content", [None, b"", b"epoch,step\n0,\xff\n", b"epoch,step\n0,4\n1,9\n2,12\n"])
def test_a_resumed_run_writes_the_rows_of_its_checkpoint_over_any_file(tmp_path, content):
    file = tmp_path / "metrics.csv"
    if content is not None:
        file.write_bytes(content)
    table = resumed(file, ROWS)
    with file.open(newline="", encoding="utf-8") as lines:
        assert [*csv.DictReader(lines)] == [{k: str(v) for k, v in row.items()} for row in ROWS]
    assert table.state_dict() == {"rows": ROWS}
    assert epochs_in({"callbacks": {table.state_key: table.state_dict()}}) == 2


def test_a_new_fit_removes_the_table_of_an_earlier_one(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,step\n0,4\n")
    resumed(file, [])
    assert not file.exists()


@pytest.mark.parametrize(("function", "images"), [(TrainerFn.FITTING, 42), (TrainerFn.TESTING, 2)])
def test_the_cost_of_earlier_sessions_is_added_when_a_fit_resumes(function, images):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.state.fn, checkpoint = function, {}
    Accounts(Spending(images_seen=40)).on_save_checkpoint(trainer, pl.LightningModule(), checkpoint)
    spent = Spending(images_seen=2)
    Accounts(spent).on_load_checkpoint(trainer, pl.LightningModule(), checkpoint)
    assert spent.images_seen == images


def test_the_best_epoch_is_found_in_a_moved_folder(tmp_path):
    before, after = (BestCheckpoint(tmp_path / name, "best", monitor="val/acc") for name in ("old", "new"))
    before.best_model_path = str(tmp_path / "old" / "best.ckpt")
    before.best_k_models = {before.best_model_path: 0.9}
    after.load_state_dict(before.state_dict())
    assert after.best_k_models == {str(tmp_path / "new" / "best.ckpt"): 0.9}
    assert after.best_model_path == str(tmp_path / "new" / "best.ckpt")
