"""Quantise an ONNX student to 8-bit integers, for CPUs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.onnx_file import INPUT, quiet, save
from amtml_pl.system.optional_packages import imported


def quantise(file: Path, card: ModelCard, calibration: Iterator[Float[Tensor, "B 3 H W"]]) -> None:
    """Rewrite a float32 student with weights and activations of 8 bits.

    Weights have a scale per channel; activations one per tensor, from the smallest to the largest value
    for the calibration images (ONNX Runtime's static quantisation). The student's normalisation and its
    result stay in float32.

    Args:
        file: the student, an ONNX file of this project.
        card: its card.
        calibration: batches of images in [0, 1], similar to the training images.
    """
    onnx = imported("onnx", extra="export")
    quantization = imported("onnxruntime.quantization", extra="export")
    preparation = imported("onnxruntime.quantization.shape_inference", extra="export")
    with tempfile.TemporaryDirectory() as folder, quiet():
        folded, quantised = Path(folder) / "folded.onnx", Path(folder) / "quantised.onnx"
        # All shapes but the batch are known, so that symbolic inference would add nothing.
        preparation.quant_pre_process(file, folded, skip_symbolic_shape=True)
        quantization.quantize_static(
            folded,
            quantised,
            Calibration(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits for weights: 8 overflow on CPUs without VNNI instructions
        )
        model: Any = onnx.load(quantised)
    save(model, card.replaced(precision="int8"), file)


class Calibration:
    """A reader of image batches, with the method that ONNX Runtime calls."""

    def __init__(self, batches: Iterator[Float[Tensor, "B 3 H W"]]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch by the name of its input; None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch.numpy()}
