"""safetensors: the weights alone, and in the metadata what the network is built from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import OpenedStudent, StudentLogits
from amtml_pl.results.network import rebuilt
from amtml_pl.system.checkpoint_file import refuse_other_network

AGAIN = "copy the file again, or write it again: python -m amtml_pl.export run=FOLDER format=safetensors"


def write(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Writes the weights by their names in the bare network, the card as metadata.

    The normalisation is not inside, so that the weights fit the network anywhere: what the card says of the
    input is what the bare network takes.
    """
    state = student.student.network.state_dict()
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    size = card.image_size
    taken = f"images: float32 (B, 3, {size}, {size}), normalised: (RGB in [0, 1] - mean) / std"
    file.write_bytes(save(tensors, metadata={**card.texts(), "input": taken}))


def card_of(file: Path) -> ModelCard:
    """The card of a student.

    Raises:
        UserError: if the file is damaged, or no exported student.
    """
    with opening(file) as content:
        texts = content.metadata() or {}
    return ModelCard.read(texts, file)


@contextmanager
def opening(file: Path) -> Iterator[Any]:
    """The content of a file, whose damage ends in one message."""
    try:
        with safe_open(file, framework="pt", device="cpu") as content:
            yield content
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{file} ({file.stat().st_size:,} bytes) cannot be opened as safetensors: {error!s:.200}.",
            fix=AGAIN,
        ) from error


def open_file(file: Path) -> OpenedStudent:
    """A student built from the card, as a configuration is: only by what a ``_target_`` may name.

    Raises:
        UserError: if the file is damaged, no exported student, or its network cannot be built.
    """
    card = card_of(file)
    with opening(file) as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    network = rebuilt(card.network)
    student = TappedNetwork(network, mean=list(card.mean), std=list(card.std))
    refuse_other_network(tensors, network.state_dict(), file, AGAIN)
    network.load_state_dict(tensors)
    return OpenedStudent(card, StudentLogits(student.requires_grad_(False).eval()))
