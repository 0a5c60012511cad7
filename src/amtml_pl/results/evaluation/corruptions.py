"""Five of the common corruptions of Hendrycks and Dietterich, in the strengths of CIFAR-10-C.

"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR 2019,
https://arxiv.org/abs/1903.12261) has fifteen and four more; these are one of noise, one of blur, and three
digital or weather ones. A mean over them is not the mCE, and not comparable with published ones.

The numbers below are those of the authors' ``make_cifar_c.py``, for images of 32×32 pixels. As there, a
corrupted image is rounded down to whole numbers of 0 to 255. Differently, the noise is a function of (seed,
severity, sample), and a blur mirrors the image at its border.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from amtml_pl.data.counter_rng import random_bits

Images: TypeAlias = Float[Tensor, "B 3 H W"]

SEVERITIES = (1, 2, 3, 4, 5)
NOISE_DEVIATION = (0.04, 0.06, 0.08, 0.09, 0.10)
BLUR_SIGMA = (0.4, 0.6, 0.7, 0.8, 1.0)
ADDED_BRIGHTNESS = (0.05, 0.10, 0.15, 0.20, 0.30)
KEPT_CONTRAST = (0.75, 0.50, 0.40, 0.30, 0.15)
JPEG_QUALITY = (80, 65, 58, 50, 40)

# Separates the noise from other random numbers of an equal seed.
_NOISE = 2**34


def corrupt(images: Images, index: Int64[Tensor, " B"], kind: str, severity: int, seed: int = 0) -> Images:
    """Return the images with one corruption.

    Args:
        images: in [0, 1].
        index: each sample's position in its split.
        kind: a key of `CORRUPTIONS`.
        severity: from 1 to 5.
        seed: of the noise.

    Returns:
        ``(B, 3, H, W)``, whole 255ths in [0, 1].
    """
    changed = CORRUPTIONS[kind](images, index, severity, seed)
    return (changed.clamp(0, 1) * 255 + 1e-4).floor() / 255  # so that a whole number stays the same


def gaussian_noise(images: Images, index: Int64[Tensor, " B"], severity: int, seed: int) -> Images:
    """Add normal noise to every value."""
    noise = torch.empty_like(images, device="cpu")
    for row, sample in zip(noise, index.tolist(), strict=True):
        state = random_bits(random_bits(random_bits(seed, _NOISE), severity), sample)
        row.normal_(generator=torch.Generator().manual_seed(state.item() >> 1))
    return images + NOISE_DEVIATION[severity - 1] * noise.to(images.device)


def blur(images: Images, _index: Int64[Tensor, " B"], severity: int, _seed: int) -> Images:
    """Blur with a Gaussian kernel, cut off at four standard deviations."""
    sigma = BLUR_SIGMA[severity - 1]
    blurred: Images = gaussian_blur(images, kernel_size=2 * round(4 * sigma) + 1, sigma=sigma)
    return blurred


def brightness(images: Images, _index: Int64[Tensor, " B"], severity: int, _seed: int) -> Images:
    """Increase the HSV value, which is the largest channel; hue and saturation stay."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + ADDED_BRIGHTNESS[severity - 1]).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-6)), brighter)


def contrast(images: Images, _index: Int64[Tensor, " B"], severity: int, _seed: int) -> Images:
    """Move every value towards the mean of its channel in the image."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + KEPT_CONTRAST[severity - 1] * (images - mean)


def jpeg(images: Images, _index: Int64[Tensor, " B"], severity: int, _seed: int) -> Images:
    """Compress every image as JPEG and decode it."""
    decoded = []
    for pixels in (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy():
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY[severity - 1])
        decoded.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255


CORRUPTIONS: Mapping[str, Callable[[Images, Int64[Tensor, " B"], int, int], Images]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg_compression": jpeg,
}
