"""safetensors files: the weights alone, with the network's configuration as metadata."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save

from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.export.card import ModelCard, opening
from amtml_pl.results.export.student import OpenedStudent, StudentLogits
from amtml_pl.results.network import build_untrained
from amtml_pl.system.checkpoint_file import refuse_other_network

AGAIN = "copy the file again, or export again: python -m amtml_pl.export run=FOLDER format=safetensors"


def write_safetensors(student: StudentLogits, card: ModelCard, file: Path) -> None:
    """Write the weights by their names in the bare network, the card as metadata.

    Neither resizing nor normalisation is inside, so that the weights fit the network anywhere: the card's
    description of the input is that of the bare network.
    """
    state = student.student.network.state_dict()
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    size = card.input_size or card.image_size
    expected = f"images: float32 (B, 3, {size}, {size}), normalised: (RGB in [0, 1] - mean) / std"
    file.write_bytes(save(tensors, metadata={**card.texts(), "input": expected}))


def read_safetensors_card(file: Path) -> ModelCard:
    """Return the card; a UserError if the file is damaged or has none."""
    with opening(file, "safetensors"), safe_open(file, framework="pt", device="cpu") as content:
        texts = content.metadata() or {}
    return ModelCard.read(texts, file)


def open_safetensors(file: Path) -> OpenedStudent:
    """Build a student from its card; only listed constructors may be named.

    Raises:
        UserError: if the file is damaged, not an exported student, or its network cannot be built.
    """
    card = read_safetensors_card(file)
    with opening(file, "safetensors"):
        tensors = load_file(file)
    network = build_untrained(card.network)
    refuse_other_network(tensors, network.state_dict(), file, AGAIN)
    network.load_state_dict(tensors)
    student = TappedNetwork(network, mean=list(card.mean), std=list(card.std), input_size=card.input_size)
    return OpenedStudent(card, StudentLogits(student.requires_grad_(False)))
