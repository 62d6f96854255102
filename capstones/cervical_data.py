"""The data of `cervical`: images, masks and labels read and checked, splits, and a drawn set."""

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from tqdm import tqdm

from capstones import drawn
from capstones.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_images,
    find_images,
    read_image,
    stem,
)
from capstones.tables import (
    check_matched,
    class_names,
    listed,
    read_parts,
    read_table,
    write_table,
)
from pathlab.errors import UserError

HEADS = ("cytoplasm", "nucleus")  # in the order of the masks' channels
COLUMNS = {
    "image": ("image", "name", "filename", "id"),
    "label": ("label", "class", "stage", "diagnosis"),
}
NUCLEUS, CYTOPLASM, BACKGROUND = 255, 128, 0
STRAY = 0.01  # share of a mask's pixels that may have another value: traces of an editor
FILL = [*(round(255 * mean) for mean in IMAGENET_MEAN), 0, 0]  # what an image moves away from


class Cells(Dataset):
    """Images float32 [C, S, S], each with its target.

    read_masks: from a place to uint8 [2, H, W] of 0 and 1. With `labels`, the target is one of
    them, and masks, if any, are channels 3 and 4; without labels, the masks, float32 [2, S, S], are
    the target. Augmentation moves an image and its masks together; colours change in the image.

    Masks are resized and turned as the image is, with interpolation, and so have values between 0
    and 1 at a border: a tv_tensors.Mask takes the nearest pixel, which shifts the mask by up to
    half a pixel against the image. That is much of a thin ring.
    """

    def __init__(
        self,
        images: Sequence[Path],
        labels: Sequence[int] | None,
        size: int,
        read_masks: Callable[[int], torch.Tensor] | None = None,
        augment: bool = False,
    ):
        self.images, self.labels, self.read_masks = images, labels, read_masks
        resize = v2.Resize((size, size), antialias=True)
        self.geometry = (
            v2.Compose([resize, *movements(read_masks is not None)]) if augment else resize
        )
        self.colour = v2.ColorJitter(0.2, 0.2, 0.2, 0.03) if augment else nn.Identity()
        self.to_float = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        image = read_image(self.images[i])
        if self.read_masks is not None:
            image = torch.cat([image, 255 * self.read_masks(i)])
        image, masks = self.geometry(tv_tensors.Image(image)).split([3, image.shape[0] - 3])
        image = self.to_float(self.colour(tv_tensors.Image(image))).as_subclass(torch.Tensor)
        masks = masks.as_subclass(torch.Tensor) / 255
        return (
            (image, masks) if self.labels is None else (torch.cat([image, masks]), self.labels[i])
        )


def movements(with_masks: bool) -> list[nn.Module]:
    """Flips, rotation, shift, scale and shear. A cell has no upside."""
    affine = v2.RandomAffine(
        degrees=45,
        translate=(0.06, 0.06),
        scale=(0.85, 1.15),
        shear=5,
        interpolation=InterpolationMode.BILINEAR,
        fill=FILL if with_masks else FILL[:3],
    )
    return [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomApply([affine], p=0.5),  # interpolation blurs: the rest stays as sharp as it is
    ]


def read_masks(path: Path, cytoplasm: str) -> torch.Tensor:
    """uint8 [2, H, W] of 0 and 1, cytoplasm and nucleus, from a mask file.

    cytoplasm: "ring", the pixels of value 128 alone, or "cell", the nucleus with them. Raises
    UserError for an unreadable file and values that do not mean anything; a few stray ones, up to
    STRAY of the pixels, count as the nearest value.
    """
    mask = read_image(path, "L")[0].to(torch.int16)
    values = torch.tensor([BACKGROUND, CYTOPLASM, NUCLEUS], dtype=torch.int16)
    distance = (mask[..., None] - values).abs()
    wrong = distance.amin(-1) > 0
    if wrong.float().mean() > STRAY:
        found = ", ".join(map(str, mask[wrong].unique().tolist()[:5]))
        raise UserError(
            f"{path} has pixels of the value {found}: expected 0 for the background, 128 for "
            "cytoplasm and 255 for the nucleus."
        )
    kind = distance.argmin(-1)
    nucleus = kind == 2
    return torch.stack([kind > 0 if cytoplasm == "cell" else kind == 1, nucleus]).byte()


def mask_paths(folder: Path, name: str) -> list[Path]:
    """The files of an image's predicted masks, in the order of HEADS."""
    return [folder / f"{name}_{head}.png" for head in HEADS]


def read_predicted(folder: Path, name: str) -> torch.Tensor:
    """uint8 [2, H, W] of 0 and 1: the masks that export_masks wrote."""
    return torch.cat([read_image(path, "L") for path in mask_paths(folder, name)]) // 255


def read_cells(data: Path, with_masks: bool) -> tuple[dict[str, Path], list[str], list[str]]:
    """(images by name, names, labels as text), everything read once and found right.

    Raises UserError that names images without a label, labels without an image, images without a
    mask, masks without an image or of another size, and files that cannot be read.
    """
    images, path = find_images(data / "images"), data / "labels.csv"
    table = read_table(path, COLUMNS)
    names = [stem(name) for name in table["image"]]
    check_matched(path, names, images, data / "images")
    check_images(images.values())
    if with_masks:
        check_masks(images, data / "masks")
    return images, names, table["label"].tolist()


def check_masks(images: dict[str, Path], folder: Path) -> None:
    """Raises UserError unless every image has one mask, of its size and with the right values."""
    masks = find_images(folder)
    if missing := sorted(set(images) - set(masks)):
        raise UserError(f"{folder} has no mask for the image {listed(missing)}.")
    if missing := sorted(set(masks) - set(images)):
        raise UserError(f"{folder} has masks without an image: {listed(missing)}.")
    for name, path in tqdm(masks.items(), "checking masks", leave=False, disable=None):
        size, expected = read_masks(path, "ring").shape[1:], own_size(images[name])
        if tuple(size) != expected:
            raise UserError(
                f"{path} is {size[1]} x {size[0]} pixels (width x height), its image "
                f"{expected[1]} x {expected[0]}: a mask has its image's size."
            )


def own_size(path: Path) -> tuple[int, int]:
    """An image's height and width in pixels, from its header."""
    with Image.open(path) as image:
        return image.height, image.width


def split_by_fold(args: argparse.Namespace, names: list[str], labels: list[str]) -> list[str]:
    """Each image's part: "training", "validation" (fold --fold) or "test" (the next, on --test).

    The folds are alike in all classes and depend on --folds and --seed alone; both stages, and
    evaluation, share them through RUN/split.csv. Raises UserError where a run already has another.
    """
    if args.fold >= args.folds:
        raise UserError(f"there is no --fold {args.fold}: {args.folds} --folds count from 0.")
    if args.test and args.folds < 3:
        raise UserError("--test needs a fold for each part: --folds from 3.")
    folds = StratifiedKFold(args.folds, shuffle=True, random_state=args.seed)
    parts = np.full(len(names), "training", dtype=object)
    try:
        with warnings.catch_warnings():
            # A class of fewer images than folds is no obstacle to segmentation.
            warnings.filterwarnings("ignore", "The least populated class")
            held_out = [places for _, places in folds.split(names, labels)]
    except ValueError as error:
        raise UserError(
            f"{len(names)} images cannot be split into {args.folds} folds: {error}"
        ) from error
    parts[held_out[args.fold]] = "validation"
    if args.test:
        parts[held_out[(args.fold + 1) % args.folds]] = "test"
    path = args.run / "split.csv"
    if path.exists() and read_parts(args.run) != dict(zip(names, parts, strict=True)):
        raise UserError(
            f"{path} was made with another --fold, --folds, --test or --seed, or of other images. "
            "Give this stage the same, or another --run."
        )
    return parts.tolist()


def choose_classes(labels: list[str], args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """(classes, those left out for having fewer than --smallest-class images).

    Raises UserError where a class has fewer images than there are folds, or fewer than two remain.
    """
    path = args.data / "labels.csv"
    counts = {name: labels.count(name) for name in class_names(labels, path)}
    left_out = [name for name, n in counts.items() if n < args.smallest_class]
    classes = class_names([label for label in labels if label not in left_out], path)
    if small := [name for name in classes if counts[name] < args.folds]:
        raise UserError(
            f"the class {small[0]} has {counts[small[0]]} image(s): each of the {args.folds} folds "
            f"needs one. Add images of it, or leave it out by --smallest-class {args.folds}."
        )
    if left_out:
        print(f"left out, with fewer than {args.smallest_class} images: {', '.join(left_out)}")
    return classes, left_out


def draw_data(folder: Path, n: int = 150, size: int = 64, seed: int = 0) -> None:
    """A small data set in the documented layout, of five stages.

    From stage to stage the nucleus fills more of the cell and its outline is rougher. Some images
    show dirt of a nucleus's colour outside the cell, which belongs to no mask.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        stage = i % 5
        center = tuple(size / 2 + size * 0.05 * rng.normal(size=2))
        radius = size * (0.34 + 0.02 * rng.normal())
        share = 0.25 + 0.11 * stage + 0.02 * rng.normal()
        cell = drawn.blob(rng, size, radius, 0.1, center)
        nucleus = cell * drawn.blob(rng, size, radius * share, 0.06 + 0.04 * stage, center)
        dirt = drawn.blob(rng, size, size * 0.04, 0.2, tuple(rng.uniform(0, size, 2)))
        dirt = dirt * (1 - cell) * (rng.random() < 0.5)
        light = 0.02 * drawn.noise(rng, size, 2) + 0.04 * drawn.noise(rng, size, 25)
        picture = np.array([0.93, 0.91, 0.94]) + light[..., None]
        for what, colour in ((cell, (0.62, 0.72, 0.80)), (nucleus + dirt, (0.33, 0.24, 0.48))):
            texture = np.array(colour) + 0.04 * drawn.noise(rng, size, 4)[..., None]
            picture = picture * (1 - what[..., None]) + texture * what[..., None]
        mask = np.where(nucleus > 0.5, NUCLEUS, np.where(cell > 0.5, CYTOPLASM, BACKGROUND))
        name = f"cell_{i:04}.png"
        drawn.save(folder / "images" / name, picture)
        drawn.save(folder / "masks" / name, mask / 255)
        rows.append({"image": name, "label": stage})
    write_table(folder / "labels.csv", pd.DataFrame(rows))
