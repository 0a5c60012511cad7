"""The run folder: a partly written file is never read as complete."""

import json

import pytest
import torch

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.provenance import git_state, versions
from amtml_pl.runs.record import FILES, RunRecord
from amtml_pl.system.records import digest_of_fields
from amtml_pl.training.checkpoints import AtomicCheckpointIO
from records import a_record


def test_a_record_is_replaced_atomically(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.record() is None
    record = RunRecord.model_validate_json(json.dumps(a_record(files=dict.fromkeys(FILES, "0"))))
    folder.write_record(record.replaced(status="interrupted"))
    assert folder.completed() is None
    folder.write_record(record)
    read = folder.completed()
    assert read.replaced(digest="") == record
    assert read.digest == digest_of_fields(json.loads(folder.record_file.read_text()))
    assert [file.name for file in folder.path.iterdir()] == ["run.json"]


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("cut off")


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(tmp_path):
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")
    with pytest.raises(
        UserError, match=r"last.ckpt cannot be written: cut off. The previous checkpoint is intact"
    ):
        writer.save_checkpoint({"epoch": 2, "bad": Unpicklable()}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}


def test_versions_and_the_commit_are_recorded():
    assert {"python", "torch", "pytorch-lightning", "amtml-pl"} <= set(versions())
    state = git_state()
    assert state is None or len(state.commit) == 40


def test_starting_over_removes_what_an_earlier_run_left(tmp_path):
    folder = RunFolder(tmp_path)
    folder.record_file.touch()
    folder.last_checkpoint.parent.mkdir()
    (tmp_path / "export").mkdir()
    written = ("events.out.tfevents.1.x", "evaluate-last-student.json", "export/student.onnx")
    users = tmp_path / "export" / "mine.txt"
    for file in (folder.last_checkpoint, folder.metrics_file, *(tmp_path / name for name in written), users):
        file.write_text("old")
    folder.clear()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [users]
