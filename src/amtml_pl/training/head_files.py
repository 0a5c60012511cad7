"""Where the linear classifiers of teachers lie, and what each depends on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amtml_pl.config.build import ObjectSpec
from amtml_pl.data.packing import find_packed
from amtml_pl.data.splits import disjoint_splits
from amtml_pl.system.files import short_digest


@dataclass(frozen=True)
class HeadFiles:
    """The classifiers of a run's teachers.

    Attributes:
        folder: below ``paths.teachers``.
        classes: K.
        images: returns what identifies the images that they are fitted on; None before packing.
    """

    folder: Path
    classes: int
    images: Callable[[], Mapping[str, Any] | None]

    def identity(
        self, backbone: Mapping[str, Any], features: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Return all causes of a classifier, as JSON; None while there are no images."""
        images = self.images()
        if images is None:
            return None
        return {"backbone": dict(backbone), "features": features, "data": dict(images)}

    def file(self, name: str, identity: Mapping[str, Any]) -> Path:
        """Return the path of a teacher's classifier."""
        digest = short_digest(json.dumps(identity, sort_keys=True), digits=16)
        return self.folder / f"{name}-{digest}.safetensors"


def image_digests(
    source: ObjectSpec,
    packed_root: Path,
    val_size: int | float,
    train_size: int | None,
    seed: int,
    classes: Sequence[int] | None,
    *,
    clip_train_size: bool,
) -> dict[str, str] | None:
    """Return digests of packed images and of the splits' rows; None before packing."""
    packed = find_packed(source.build(), packed_root)
    if packed is None:
        return None
    splits = disjoint_splits(packed, val_size, train_size, seed, classes, clip_train_size=clip_train_size)
    return {"images": packed.digest} | {str(k): split.digest for k, split in splits.items() if k != "test"}
