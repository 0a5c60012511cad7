"""Logits and named features of any network, by dotted module path and without editing it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from amtml_pl.errors import NETWORK, UserError
from amtml_pl.models.feature_map import MapReading, as_map, type_and_shape
from amtml_pl.models.resize import resize
from amtml_pl.models.state import evaluation_mode
from amtml_pl.models.teacher_head import LinearHead, NoHead
from amtml_pl.types import ModelOutputs, Shape

DEFAULT = MapReading()
PATHS_SHOWN = 40


class TappedNetwork(nn.Module):
    """A network that resizes and normalises its images itself and returns logits and named features.

    A tap is the dotted path of a module inside ``network`` and reads what that module returns:
    ``(B, C, H, W)`` stays, ``(B, C)`` becomes ``(B, C, 1, 1)``; tokens ``(B, T, C)`` and maps with channels
    last become what ``reading`` says. A module that runs several times in one forward gives its last output.
    Features carry gradients and are copies, because the ReLU behind a tapped module often overwrites its
    input.

    Args:
        network: any module from images ``(B, 3, H, W)`` to logits ``(B, K)``; its weights are the whole
            ``state_dict``, under ``network.``.
        mean: the three channel means, on the scale of [0, 1], that the network was or will be trained with.
        std: the three standard deviations, likewise; greater than 0.
        taps: the paths to read, in the order of the features; repeated ones are read once.
        input_size: height and width that the network takes, 1 or more; None takes images as they are.
        reading: how tokens and maps with channels last become maps.
        head: makes the logits of a backbone without a classifier; its tap must be among ``taps``.

    Raises:
        UserError: if a tap names no module, or ``mean`` or ``std`` are not three usable numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        taps: Sequence[str] = (),
        input_size: int | None = None,
        reading: MapReading = DEFAULT,
        head: NoHead | LinearHead | None = None,
    ) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.input_size = input_size
        self.taps = tuple(dict.fromkeys(taps))
        self.reading = reading
        # Not persistent: the config holds them, and exported weights stay those of the bare network.
        self.register_buffer("mean", channel_values("mean", mean), persistent=False)
        self.register_buffer("std", channel_values("std", std), persistent=False)
        self.recorder = Recorder()
        for tap in self.taps:
            # A bound method follows its object through copy.deepcopy, so that a copy records into its own.
            module = find_module(network, tap)
            own = reading.of_module(network, module)
            module.register_forward_hook(partial(self.recorder.record, tap, own))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> ModelOutputs:
        """Return logits (B, K) and features (B, C, H, W) of images in [0, 1].

        Raises:
            UserError: if the network returns no logits, or a tapped module is not run or returns no feature.
        """
        recorded: dict[str, Tensor] = {}
        self.recorder.recorded = recorded
        try:
            sized = images if self.input_size is None else resize(images, self.input_size)
            output = self.network((sized - self.mean) / self.std)
        finally:
            self.recorder.recorded = None
        self.check_called(recorded)
        logits = output if self.head is None else self.head(images, output, recorded)
        self.check(logits, recorded)
        return ModelOutputs(logits=logits, features={tap: recorded[tap] for tap in self.taps})

    def check_called(self, recorded: Mapping[str, Tensor]) -> None:
        """Raise a UserError unless the forward has called every tapped module."""
        if idle := [tap for tap in self.taps if tap not in recorded]:
            raise UserError(
                f"The forward pass of {type(self.network).__name__} does not call the tapped modules {idle}.",
                fix=f"choose other modules in stages or hint of {NETWORK}",
            )

    def check(self, logits: object, recorded: Mapping[str, Tensor]) -> None:
        """Raise a UserError unless logits and every feature have one row per image."""
        name = type(self.network).__name__
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise UserError(
                f"{name} has a wrong output (got {type_and_shape(logits)}, expected logits of shape (B, K)).",
                fix="choose a network that returns one row of logits per image, or change its arguments",
            )
        if stacked := {tap: len(f) for tap, f in recorded.items() if len(f) != len(logits)}:
            raise UserError(
                f"Tapped modules of {name} return a wrong number of rows "
                f"(got {stacked}, expected {len(logits)}, one per image).",
                fix="set stages and hint to modules with one row per image, such as their parent modules",
            )


class Recorder:
    """Place where the hooks of a tapped network store their outputs during its forward.

    Not the network itself: its hooks would hold it in a cycle, and an unused teacher would stay in memory
    until the garbage collector runs.
    """

    def __init__(self) -> None:
        self.recorded: dict[str, Tensor] | None = None

    def record(
        self, tap: str, reading: MapReading, module: nn.Module, args: tuple[Any, ...], output: object
    ) -> None:
        """Store a tapped module's output; does nothing outside the tapped network's forward."""
        if self.recorded is not None:
            self.recorded[tap] = as_map(tap, output, reading)


def channel_values(name: Literal["mean", "std"], values: Sequence[float]) -> Float[Tensor, "1 3 1 1"]:
    """Return a mean or std as a tensor; raise a UserError for unusable values."""
    if len(values) != 3 or (name == "std" and not all(value > 0 for value in values)):
        wanted = "three numbers" if name == "mean" else "three numbers greater than 0"
        raise UserError(
            f"{name} has a wrong value (got {list(values)}, expected {wanted}, one per colour channel).",
            fix=f"set 'dataset.{name}=[0.5,0.5,0.5]', or 'teacher.NAME.{name}=[0.5,0.5,0.5]' for a teacher",
        )
    return torch.tensor([float(value) for value in values]).view(1, 3, 1, 1)


def find_module(network: nn.Module, path: str) -> nn.Module:
    """Return the submodule at a dotted path; a UserError suggests the closest paths."""
    modules: dict[str, nn.Module] = dict(network.named_modules(remove_duplicate=False))
    if path and path in modules:
        return modules[path]
    raise UserError(
        f"{type(network).__name__} has no module {path!r}. {suggest_paths(path, list(modules))}",
        fix=f"set stages or hint of {NETWORK} to existing modules",
    )


def suggest_paths(wrong: str, paths: Sequence[str]) -> str:
    """Return a sentence with the paths closest to a wrong one, then existing paths."""
    upper = sorted((path for path in paths if path), key=lambda path: path.count("."))
    close = difflib.get_close_matches(wrong, upper, n=3, cutoff=0.5)
    closest = f"Similar paths: {', '.join(close)}. " if close else ""
    more = f" and {len(upper) - PATHS_SHOWN} deeper modules" if len(upper) > PATHS_SHOWN else ""
    return f"{closest}Existing paths: {', '.join(upper[:PATHS_SHOWN]) or 'none'}{more}."


def tap_shapes(network: TappedNetwork, image_size: int) -> tuple[int, dict[str, Shape]]:
    """Return K and the shape (C, H, W) of each tap, from a `blank_forward`."""
    outputs = blank_forward(network, image_size)
    shapes = {tap: (f.shape[1], f.shape[2], f.shape[3]) for tap, f in outputs.features.items()}
    return outputs.logits.shape[1], shapes


@dataclass(frozen=True)
class NetworkCost:
    """Parameters and operations of a network.

    Attributes:
        parameters: all of them, trainable or not.
        macs: multiply-accumulates for one image, of convolutions and matrix products as is usual: norms,
            activations and pooling are not counted.
    """

    parameters: int
    macs: int


def cost(network: TappedNetwork, image_size: int) -> NetworkCost:
    """Count a network's parameters, and its multiply-accumulates in a `blank_forward`."""
    with FlopCounterMode(display=False) as counter:
        blank_forward(network, image_size)
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=counter.get_total_flops() // 2,
    )


def blank_forward(network: TappedNetwork, image_size: int) -> ModelOutputs:
    """Return the outputs for one black image, in evaluation mode and without gradients.

    Args:
        network: left as it was, batch-norm statistics and training modes included.
        image_size: height and width of the image, in pixels, before the network resizes it.

    Raises:
        UserError: as `TappedNetwork.forward`, or if the network cannot take an image of its input size.
    """
    image = torch.zeros(1, 3, image_size, image_size, dtype=network.mean.dtype, device=network.mean.device)
    try:
        with evaluation_mode(network), torch.no_grad():
            outputs: ModelOutputs = network(image)
    except (RuntimeError, ValueError, AssertionError) as error:
        size = network.input_size or image_size
        raise UserError(
            f"{type(network.network).__name__} fails on images of {size}x{size} pixels: {error}",
            fix=f"set input_size of {NETWORK} to a size that the network takes, choose "
            "another network, or adapt it with amtml_pl.models.small_images.adapt_stem",
        ) from error
    return outputs
