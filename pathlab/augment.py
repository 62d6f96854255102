"""Random changes of whole batches that leave the label true. Used by `--recipe best`."""

from collections.abc import Callable

import torch

from pathlab.data import ImageData

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def augmentation_for(data: ImageData) -> Augmentation:
    """Tissue in colour has no up or down; a gray image (X-ray, CT, ultrasound) has."""
    return augment_gray if data.is_gray else augment_tissue


def augment_tissue(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images float32 [B, 3, 28, 28] in [-1, 1] -> the same shape and range.

    One of the eight flips and quarter turns for each image, and a slightly stronger or weaker
    stain: each channel's optical density, log(white / light), times 0.9 to 1.1.
    """
    images = random_flips_and_turns(images, generator)
    light = (images + 1) / 2 + 1 / 255  # keep black away from log(0)
    strength = 0.9 + 0.2 * torch.rand(len(images), 3, 1, 1, generator=generator)
    return (light**strength * 2 - 1).clamp(-1, 1)  # light ** s  ==  exp(-s * density)


def random_flips_and_turns(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the eight symmetries of the square for each image [B, C, N, N]."""
    symmetry = torch.randint(8, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for number in range(8):
        chosen = symmetry == number
        turned = torch.rot90(images[chosen], number % 4, dims=(2, 3))
        out[chosen] = turned.flip(3) if number >= 4 else turned
    return out
