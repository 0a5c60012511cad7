"""Choose the augmentation of ``augment=auto`` by the size of the images."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from amtml_pl.config.paths import config_directory

LARGEST_SMALL_IMAGE = 64  # pixels; as in `amtml_pl.models.small_images`, which torch keeps out of here


def default_operations(image_size: object) -> Any:
    """Return ``${amtml.default_operations:SIZE}``, the operations of the preset for a size in pixels."""
    is_large = isinstance(image_size, int) and image_size > LARGEST_SMALL_IMAGE
    name = "resized_crop" if is_large else "crop_flip"
    return OmegaConf.load(config_directory() / "augment" / f"{name}.yaml").operations
