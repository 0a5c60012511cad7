"""Classifiers for a backbone that has none: one linear layer, or a stand-in without information."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError


class NoHead(nn.Module):
    """Stand-in for a classifier: the logit 0 for every class.

    Args:
        classes: K.
    """

    tap = None

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(
        self, images: Float[Tensor, "B 3 H W"], output: object, maps: Mapping[str, Tensor]
    ) -> Float[Tensor, "B {self.classes}"]:
        """Return zeros; the network's own output is not read."""
        return images.new_zeros(len(images), self.classes)


class LinearHead(nn.Module):
    """Linear classifier on a backbone's features, which it returns themselves until it is fitted.

    Args:
        tap: the module whose map, averaged over its positions, is the features; None takes the network's own
            output, which must be ``(B, D)``.
        linear: from D features to K logits; None before the fit.
    """

    def __init__(self, tap: str | None, linear: nn.Linear | None = None) -> None:
        super().__init__()
        self.tap, self.linear = tap, linear

    def forward(
        self, images: Float[Tensor, "B 3 H W"], output: object, maps: Mapping[str, Tensor]
    ) -> Float[Tensor, "B _"]:
        """Return logits (B, K); before the fit features (B, D)."""
        features = self.features(output, maps)
        return features if self.linear is None else self.linear(features)

    def features(self, output: object, maps: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
        """Return the features; no vector of them is a UserError."""
        if self.tap is not None:
            return maps[self.tap].flatten(2).mean(dim=2)
        if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point():
            return output
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"The network returns no features for head=linear (got {found}, expected the shape (B, D)).",
            fix="set teacher.NAME.hint to the module with the last feature map, which is then averaged",
        )
