"""The table of a run's epochs, which a resumed run goes on with."""

import os
import subprocess
import sys

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
