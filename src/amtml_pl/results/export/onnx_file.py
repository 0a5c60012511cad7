"""ONNX files: a graph of operators for ONNX Runtime and most other runtimes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.results.export.card import ModelCard, opening
from amtml_pl.results.export.student import OpenedStudent, StudentLogits
from amtml_pl.system.optional_packages import imported

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "images", "logits"


def write_onnx(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Write the graph with dynamic batch, its weights inside the file, the card as metadata.

    This uses torch's exporter based on `torch.export`; the older one, which traces, is deprecated.
    """
    onnx, size = imported("onnx", extra="export"), card.image_size
    example = torch.zeros(2, 3, size, size)  # one image would fix the batch size
    with without_logs():
        program: Any = torch.onnx.export(
            student,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    model = program.model_proto
    for part in parts(model):
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            del part.metadata_props[:]  # paths and lines of the user's code
    onnx.helper.set_model_props(model, card.texts())
    file.write_bytes(model.SerializeToString())


def read_onnx(file: Path) -> tuple[Any, ModelCard]:
    """Return the model and the card of a file.

    Raises:
        UserError: if the file is damaged, or not an exported student.
    """
    onnx = imported("onnx", extra="export")
    with opening(file, "onnx"):
        model = onnx.load_model_from_string(file.read_bytes())
    return model, ModelCard.read({entry.key: entry.value for entry in model.metadata_props}, file)


def read_onnx_card(file: Path) -> ModelCard:
    """Return the card of a student; raises as `read_onnx`."""
    return read_onnx(file)[1]


def open_onnx(file: Path) -> OpenedStudent:
    """Open a student with ONNX Runtime, on as many threads as torch has.

    Raises:
        UserError: if the file is damaged, reads other files, or is not an exported student.
    """
    onnx, runtime = (imported(name, extra="export") for name in PACKAGES[:2])
    model, card = read_onnx(file)
    tensors = (part for part in parts(model) if isinstance(part, onnx.TensorProto))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise UserError(
            f"The ONNX file {file} stores the network weights in other files (expected one file).",
            fix="write the network weights into one file in Python: onnx.save(onnx.load(FILE), NEW_FILE)",
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, too
    with opening(file, "onnx"):
        content = model.SerializeToString()
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in (*session.get_inputs(), *session.get_outputs())]
        if names != [INPUT, OUTPUT]:
            raise ValueError(f"the inputs and outputs are {names}, expected {[INPUT, OUTPUT]}")

    def forward(images: Float[Tensor, "B 3 H W"]) -> Tensor:
        [logits] = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return OpenedStudent(card, forward)


def parts(message: Any) -> Iterator[Any]:
    """Yield a message of a model, and every message in it."""
    yield message
    values = [value for field, value in message.ListFields() if field.message_type is not None]
    for value in values:
        for part in value if hasattr(value, "__len__") else [value]:
            yield from parts(part)


@contextmanager
def without_logs() -> Iterator[None]:
    """Hide the logs of the exporter."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
