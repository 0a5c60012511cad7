"""ONNX: a graph of operators for ONNX Runtime, and for most other runtimes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits, example
from amtml_pl.system.optional_packages import imported

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "images", "logits"


def write(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Writes the graph with dynamic batch, its weights inside the file, the card in its metadata.

    torch's exporter that follows `torch.export` is taken; the older one, which traces, is deprecated.
    """
    with quiet():
        program: Any = torch.onnx.export(
            student,
            (example(card.image_size),),
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
    add_card(model, card)
    file.write_bytes(model.SerializeToString())


def add_card(model: Any, card: ModelCard) -> None:  # noqa: ANN401
    """Replaces the metadata of a model by a card."""
    imported("onnx", extra="export").helper.set_model_props(model, card.texts())


def replace_card(file: Path, card: ModelCard) -> None:
    """Replaces the card of a student that has been written."""
    model = parsed(file.read_bytes(), file)
    add_card(model, card)
    file.write_bytes(model.SerializeToString())


def card_of(file: Path) -> ModelCard:
    """The card of a student.

    Raises:
        UserError: if the file is damaged, or no exported student.
    """
    return ModelCard.read(metadata(parsed(file.read_bytes(), file)), file)


def open_file(file: Path) -> OpenedStudent:
    """A student for ONNX Runtime, on as many threads as torch has.

    Raises:
        UserError: if the file is damaged, asks for other files, or is no exported student.
    """
    onnx, runtime = (imported(name, extra="export") for name in PACKAGES[:2])
    content = file.read_bytes()
    model = parsed(content, file)
    card = ModelCard.read(metadata(model), file)
    if asks_for_files(model, onnx.TensorProto):
        raise UserError(
            f"{file} takes weights from other files, which amtml_pl.export never writes. None was opened.",
            fix="model=FILE with its weights inside: onnx.save(onnx.load(FILE), NEW)",
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is an error is raised, too
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in (*session.get_inputs(), *session.get_outputs())]
    except Exception as error:  # ONNX Runtime has an exception for every kind of damage
        raise damaged(file, error) from error
    if names != [INPUT, OUTPUT]:
        raise damaged(file, ValueError(f"inputs and outputs {names}, expected {[INPUT, OUTPUT]}"))

    def forward(images: Tensor) -> Tensor:
        [logits] = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return OpenedStudent(card, forward)


def parsed(content: bytes, file: Path) -> Any:  # noqa: ANN401
    """A model of ONNX.

    Raises:
        UserError: if the bytes are none.
    """
    try:
        return imported("onnx", extra="export").load_model_from_string(content)
    except Exception as error:  # protobuf's own exceptions, of which none is public
        raise damaged(file, error) from error


def metadata(model: Any) -> Mapping[str, str]:  # noqa: ANN401
    """What a model says of itself, by name."""
    return {entry.key: entry.value for entry in model.metadata_props}


def asks_for_files(model: Any, tensor: Any) -> bool:  # noqa: ANN401
    """Whether a tensor anywhere in a model lies in another file.

    Args:
        model: as it was parsed.
        tensor: the class of its tensors.
    """
    return any(part.data_location == tensor.EXTERNAL for part in parts(model) if isinstance(part, tensor))


def parts(message: Any) -> Iterator[Any]:  # noqa: ANN401
    """A model, and every message in it."""
    yield message
    values = [value for field, value in message.ListFields() if field.message_type is not None]
    for value in values:
        for part in value if hasattr(value, "__len__") else [value]:
            yield from parts(part)


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporter and the quantisation log tells of their passes, and advises what is done already."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def damaged(file: Path, error: Exception) -> UserError:
    """What to say of a file that ONNX or its runtime refuses."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"{file} ({file.stat().st_size:,} bytes) cannot be opened as ONNX: {reason:.200}.",
        fix="copy the file again, or write it again: python -m amtml_pl.export run=FOLDER format=onnx",
    )
