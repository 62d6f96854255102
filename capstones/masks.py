"""Masks of cytoplasm and nucleus: read, checked, written, and moved with their image."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from capstones.cervical_models import HEADS, resize
from capstones.images import IMAGENET_MEAN, read_image, to_float
from pathlab.errors import UserError
from pathlab.files import write_atomically

VALUES = (0, 128, 255)  # background, cytoplasm, nucleus
STRAY = 0.01  # share of a mask's pixels that may have another value: traces of an editor
FILL = [*(round(255 * mean) for mean in IMAGENET_MEAN), 0, 0]  # what an image moves away from


def mask_paths(folder: Path, name: object) -> list[Path]:
    """The files of an image's predicted masks, in the order of HEADS."""
    return [folder / f"{name}_{head}.png" for head in HEADS]


def read_masks(files: Sequence[Path], cytoplasm: str = "ring") -> torch.Tensor:
    """uint8 [2, H, W] of 0 and 1: cytoplasm and nucleus.

    files: both predicted masks, or the one of a data set. Of that, cytoplasm is a "ring", the
    pixels of value 128 alone, or the "cell", the nucleus with them. Raises UserError for an
    unreadable file and values that do not mean anything; a few stray ones, up to STRAY of the
    pixels, count as the nearest value.
    """
    if len(files) == len(HEADS):
        return torch.cat([read_image(path, "L") for path in files]) // 255
    mask = read_image(files[0], "L")[0].to(torch.int16)
    distance = (mask[..., None] - torch.tensor(VALUES, dtype=torch.int16)).abs()
    wrong = distance.amin(-1) > 0
    if wrong.float().mean() > STRAY:
        found = ", ".join(map(str, mask[wrong].unique().tolist()[:5]))
        raise UserError(
            f"{files[0]} has pixels of the value {found}: expected 0 for the background, 128 for "
            "cytoplasm and 255 for the nucleus."
        )
    kind = distance.argmin(-1)
    return torch.stack([kind > 0 if cytoplasm == "cell" else kind == 1, kind == 2]).byte()


def check_mask(files: tuple[Path, Path]) -> None:
    """Raises UserError unless the mask (second) has its image's size and the right values."""
    (height, width), (h, w) = read_masks(files[1:]).shape[1:], own_size(files[0])
    if (height, width) != (h, w):
        raise UserError(
            f"{files[1]} is {width} x {height} pixels (width x height), its image {w} x {h}: a "
            "mask has its image's size."
        )


def write_masks(image: Path, maps: torch.Tensor, folder: Path, name: object) -> None:
    """Write probabilities, float32 [2, h, w], as masks of 0 and 255 in the image's own size.

    The heads are independent, so a pixel may be in both.
    """
    masks = resize(maps[None], own_size(image))[0] > 0.5
    for path, mask in zip(mask_paths(folder, name), masks, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(mask.byte().mul(255).numpy()).save(buffer, format="png")
        write_atomically(path, buffer.getvalue())


def own_size(path: Path) -> tuple[int, int]:
    """An image's height and width in pixels, from its header."""
    with Image.open(path) as image:
        return image.height, image.width


class CellTransform:
    """From a cell's files, its image and perhaps masks, to (image, masks), [3, S, S] and [0 or 2,
    S, S], float32, or with `joined` to one tensor of both.

    Augmentation moves an image and its masks together; colours change in the image. Masks are
    resized and turned as the image is, with interpolation, and so have values between 0 and 1 at a
    border: a tv_tensors.Mask takes the nearest pixel, which shifts the mask by up to half a pixel
    against the image. That is much of a thin ring.
    """

    def __init__(self, size: int, cytoplasm: str, joined: bool, augment: bool) -> None:
        self.size, self.cytoplasm, self.joined, self.augment = size, cytoplasm, joined, augment
        self.resize = v2.Resize((size, size), antialias=True)
        self.colour = v2.ColorJitter(0.2, 0.2, 0.2, 0.03) if augment else nn.Identity()
        self.to_float = to_float()

    def __call__(self, files: Sequence[Path]) -> tuple[torch.Tensor, torch.Tensor] | torch.Tensor:
        image = read_image(files[0])
        if files[1:]:
            image = torch.cat([image, 255 * read_masks(files[1:], self.cytoplasm)])
        image = self.resize(tv_tensors.Image(image))
        if self.augment:
            image = movements(len(image))(image)
        image, masks = image.split([3, len(image) - 3])
        image = self.to_float(self.colour(tv_tensors.Image(image))).as_subclass(torch.Tensor)
        masks = masks.as_subclass(torch.Tensor) / 255
        return torch.cat([image, masks]) if self.joined else (image, masks)


def movements(channels: int) -> nn.Module:
    """Flips, rotation, shift, scale and shear. A cell has no upside."""
    affine = v2.RandomAffine(
        degrees=45,
        translate=(0.06, 0.06),
        scale=(0.85, 1.15),
        shear=5,
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL[:channels],
    )
    # Interpolation blurs: half of the images stay as sharp as they are.
    moved = v2.RandomApply([affine], p=0.5)
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), moved])
