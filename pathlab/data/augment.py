"""Random changes of whole batches that keep the label right. Used by `--recipe best`."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from pathlab.data.sets import ImageData

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def augmentation_for(data: ImageData) -> Augmentation:
    """The augmentation for a data set: coloured tissue has no up or down, a gray image (X-ray, CT,
    ultrasound) has."""
    return augment_gray if data.is_gray else augment_tissue


def augment_tissue(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images float32 [B, 3, 28, 28] in [-1, 1] -> the same shape and range.

    One of the eight flips and quarter turns for each image, and a slightly stronger or weaker
    stain: each channel's optical density, log(white / light), times 0.9 to 1.1.
    """
    images = random_flips_and_turns(images, generator)
    light = (images + 1) / 2 + 1 / 255  # keep black away from log(0)
    strength = 0.9 + 0.2 * torch.rand(len(images), 3, 1, 1, generator=generator)
    light = light**strength - 1 / 255  # light ** s  ==  exp(-s * density)
    return (light * 2 - 1).clamp(-1, 1)


def augment_gray(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Gray images, repeated to float32 [B, 3, 28, 28] in [-1, 1] -> the same shape and range.

    As if the picture had been taken on another machine: another position, sharpness, exposure
    and noise.
    """
    images = images[:, :1]  # the three channels are the same
    images = random_position(images, generator)
    images = random_sharpness(images, generator)
    images = random_exposure(images, generator)
    images = images + _uniform(0.0, 0.05, images, generator) * torch.empty_like(images).normal_(
        generator=generator
    )
    return images.clamp(-1, 1).expand(-1, 3, -1, -1)


def random_flips_and_turns(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the eight symmetries of the square for each image [B, C, N, N]."""
    symmetry = torch.randint(8, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for number in range(8):
        chosen = symmetry == number
        turned = torch.rot90(images[chosen], number % 4, dims=(2, 3))
        out[chosen] = turned.flip(3) if number >= 4 else turned
    return out


def random_position(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image [B, C, H, W] mirrored or not, turned by up to 15 degrees, scaled by up to
    exp(0.15), shifted by up to a tenth of its size and slightly sheared; edges are repeated."""
    angle = _uniform(-math.radians(15), math.radians(15), images, generator).flatten()
    scale = torch.exp(_uniform(-0.15, 0.15, images, generator).flatten())
    shear = _uniform(-0.1, 0.1, images, generator).flatten()
    x, y = (_uniform(-0.2, 0.2, images, generator).flatten() for _ in range(2))  # width is 2
    mirror = 1 - 2 * torch.randint(2, (len(images),), generator=generator)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos * mirror, shear - sin, x], dim=1)]
    rows += [torch.stack([sin * mirror, cos, y], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_sharpness(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each gray image [B, 1, H, W] blurred, or sharpened by as much (unsharp masking)."""
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    blurred = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel[None, None])
    return images + _uniform(-1.0, 1.0, images, generator) * (images - blurred)


def random_exposure(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image's gamma and contrast times up to exp(0.4), its brightness moved by up to 0.3."""
    light = ((images.clamp(-1, 1) + 1) / 2).clamp(min=1e-3)
    images = 2 * light ** torch.exp(_uniform(-0.4, 0.4, images, generator)) - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * torch.exp(_uniform(-0.4, 0.4, images, generator))
    return images + _uniform(-0.3, 0.3, images, generator)


def _uniform(
    low: float, high: float, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """One number for each image, [B, 1, 1, 1]."""
    return torch.empty(len(images), 1, 1, 1).uniform_(low, high, generator=generator)
