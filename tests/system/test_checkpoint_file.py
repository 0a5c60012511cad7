"""A damaged checkpoint is an error, and the run does not resume from it."""

import pytest

from amtml_pl.errors import UserError
from sealing import change_record
from tiny_runs import CE


@pytest.mark.slow
def test_a_run_does_not_resume_from_a_checkpoint_with_a_changed_weight(run):
    command = ("experiment=digits", "method=ce", *CE, "trainer.max_epochs=1", "doctor=false")
    _, folder = run(*command)
    change_record(folder.path, status="interrupted")
    content = bytearray(folder.last_checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    folder.last_checkpoint.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"(?s)last\.ckpt .*the checksum of .* is wrong.*force=true"):
        run(*command)
    record, _ = run(*command, "force=true")
    assert record.status == "completed"
