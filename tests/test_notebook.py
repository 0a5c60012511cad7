"""The Python functions in a real Jupyter kernel: output, errors, an interrupt and a restart."""

import json
import queue
import re
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parent.parent / "examples" / "own_images.ipynb"
PREPARE = """
from amtml_pl import run_experiment
words = ["experiment=digits", "method=ce", "trainer=cpu", "logger=[]", "data.train_size=200",
         "data.val_size=60", "data.batch_size=20", "student=resnet8_thin", "paths.data={data}"]
"""


class Kernel:
    """A kernel in a folder, and what its cells print and raise."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(folder))

    def run(self, code, *, interrupt_after=None):
        """Return the text that a cell prints, and the lines that the notebook shows for an exception."""
        sent, text, shown, end = self.client.execute(code), "", [], time.monotonic() + 300
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=5)
            except queue.Empty:
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "stream":
                text += content["text"]
            if message["msg_type"] == "error":
                shown = content["traceback"]
            if interrupt_after and interrupt_after in text:
                self.manager.interrupt_kernel()
                interrupt_after = None
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return text, shown
        raise TimeoutError(text)

    def restart(self):
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=120)

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path):
    opened = Kernel(tmp_path)
    yield opened
    opened.stop()


def test_cells_train_fail_and_are_interrupted_and_resumed_after_a_restart(kernel, shared, tmp_path):
    prepare = PREPARE.format(data=shared / "data")
    kernel.run(prepare)
    text, shown = kernel.run("run_experiment(*words, 'trainer.max_epochs=1', 'seed=1')")
    assert shown == []
    assert "epoch 1/1: val/acc" in text
    _, shown = kernel.run("run_experiment(*words, 'studnet=resnet8')")
    [line] = shown
    assert line.startswith("error: The overrides have 1 mistake:\n  - studnet: unknown key; did you mean")
    long = "run = run_experiment(*words, 'trainer.max_epochs=30')"
    _, shown = kernel.run(long, interrupt_after="epoch 2/30")
    assert shown == ["The call was interrupted. Repeat it to resume the run, also in a new process."]
    records = [json.loads(file.read_text()) for file in (tmp_path / "outputs").rglob("run.json")]
    assert sorted(record["status"] for record in records) == ["completed", "interrupted"]
    kernel.restart()
    kernel.run(prepare)
    text, shown = kernel.run(f"{long}\nprint(run.record.status, len(run.metrics()['epoch']))")
    assert shown == []
    assert "Resuming from" in text
    assert "completed 30" in text


def test_the_example_has_no_stored_outputs():
    notebook = nbformat.read(EXAMPLE, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code if cell.outputs or cell.execution_count] == []
    assert not re.search("/(home|root|work|tmp|Users)/", EXAMPLE.read_text())


def test_the_example_ends_in_an_onnx_file(tmp_path):
    notebook = nbformat.read(EXAMPLE, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    assert (tmp_path / "student.onnx").is_file()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    [result] = [
        output for output in shown if output.output_type == "execute_result" and "html" in str(output)
    ]
    assert "student resnet8_thin" in result.data["text/html"]
    assert "did you mean 'resnet8'?" in shown[-1].text
