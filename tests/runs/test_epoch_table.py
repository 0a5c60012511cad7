"""The table of a run's epochs, which a resumed run writes anew from its checkpoint."""

import csv

import pytest
import pytorch_lightning as pl

from amtml_pl.training.callbacks import EpochTable, epochs_in

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
