"""Part of a network behind one of its modules, cut out: a teacher's own classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from amtml_pl.errors import UserError

ClassMap: TypeAlias = Sequence[int | None] | None  # by class of the data: the index of its output


def map_of_classes(classes: Sequence[int] | None, num_classes: int) -> ClassMap:
    """Return the class map of a network with K outputs, trained on some classes."""
    return None if classes is None else [c if c in classes else None for c in range(num_classes)]


def in_class_order(logits: Float[Tensor, "B O"], class_map: ClassMap) -> Float[Tensor, "B K"]:
    """Return the outputs of the data's classes; minus infinity for a class without an output."""
    if class_map is None:
        return logits
    ordered: Tensor = logits[:, [0 if output is None else output for output in class_map]]
    unknown = [place for place, output in enumerate(class_map) if output is None]
    return (
        ordered.index_fill(1, torch.tensor(unknown, device=logits.device), -torch.inf) if unknown else ordered
    )


class ClassifierHead(nn.Module):
    """Rest of a network behind a tap, frozen: from that module's output to logits.

    Only the modules that this takes are kept, so that the network itself can be freed.

    Args:
        network: from images to logits; not changed.
        tap: the dotted path of the module whose output is replaced.
        class_map: as of `amtml_pl.teachers.live.Teacher`.

    Raises:
        UserError: if the network cannot be traced, or reads more than the tap's output behind it.
    """

    def __init__(self, network: nn.Module, tap: str, class_map: ClassMap = None) -> None:
        super().__init__()
        self.rest = cut_after(network, tap).requires_grad_(False)
        self.train(False)
        self.class_map = class_map

    def forward(self, feature: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Return logits (B, K), in the order of the data's classes."""
        logits: Tensor = self.rest(feature.clone())  # its first operation may be in place
        return in_class_order(logits, self.class_map)

    def train(self, mode: bool = True) -> ClassifierHead:
        """Stay in evaluation mode: its batch norm is the teacher's."""
        return super().train(False)


class TapTracer(fx.Tracer):
    """Tracer that enters only the modules around a tap; the others need not be traceable."""

    def __init__(self, tap: str) -> None:
        super().__init__()
        self.tap = tap

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return True if a module stays one node."""
        return not self.tap.startswith(f"{module_qualified_name}.")


def cut_after(network: nn.Module, tap: str) -> fx.GraphModule:
    """Return the network with a tap's output in the place of its input; see `ClassifierHead`."""
    name = type(network).__name__
    try:
        cut = fx.GraphModule(network, TapTracer(tap).trace(network))
    except Exception as error:  # any error of the network's own code when it meets a proxy
        raise UserError(
            "The classifier of a teacher, which the loss terms regression_confidence and srrl run, cannot be "
            f"separated: torch.fx cannot trace {name} after {tap!r} ({error}).",
            fix="choose another teacher, or a loss without these terms, such as 'loss=[ce,kd]'",
        ) from error
    images = next(node for node in cut.graph.nodes if node.op == "placeholder")
    taps = [node for node in cut.graph.nodes if node.op == "call_module" and node.target == tap]
    if not taps:
        raise UserError(
            f"{name} never calls the module {tap!r}.", fix="set teacher.NAME.hint to another module"
        )
    with cut.graph.inserting_before(images):
        feature = cut.graph.placeholder("feature")
    taps[-1].replace_all_uses_with(feature)
    cut.graph.eliminate_dead_code()
    if images.users:
        raise UserError(
            "The classifier of a teacher, which the loss terms regression_confidence and srrl run, cannot be "
            f"separated: the layers of {name} after {tap!r} also read earlier modules.",
            fix="set teacher.NAME.hint to the last module before the classifier",
        )
    cut.graph.erase_node(images)
    cut.recompile()
    cut.delete_all_unused_submodules()
    return cut
