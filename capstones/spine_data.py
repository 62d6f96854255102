"""Spine X-rays: found, labelled, divided, prepared for a network, and drawn for the demo."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

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
    check_classes,
    check_matched,
    class_names,
    encode,
    places_of,
    read_parts,
    read_table,
    split,
    write_table,
)
from pathlab.data import sets as medmnist
from pathlab.errors import UserError

COLUMNS = {
    "image": ("image", "name", "id", "image_id", "filename"),
    "label": ("label", "diagnosis", "class"),
}
NEGATIVE = ("0", "no finding", "no_finding", "normal", "negative", "healthy")
PARTS = {
    "training": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}


@dataclass(frozen=True)
class XRays:
    """images: files, or uint8 [N, 1 or 3, H, W]. labels: 0 or 1 each; parts: keys of PARTS each.

    classes: two names, the one without a finding first. Where nothing is known, labels, classes and
    parts are empty.
    """

    names: list[str]
    images: list[Path] | torch.Tensor
    labels: list[int]
    classes: list[str]
    parts: list[str]

    def take(self, places: list[int]) -> "XRays":
        def chosen(values: list) -> list:
            return [values[i] for i in places] if values else values

        images = self.images[places] if torch.is_tensor(self.images) else chosen(self.images)
        labels, parts = chosen(self.labels), chosen(self.parts)
        return XRays(chosen(self.names), images, labels, self.classes, parts)

    def check_images(self) -> None:
        """Raises UserError for a damaged file."""
        if not torch.is_tensor(self.images):
            check_images(self.images)


def load_data(path: Path, labelled: bool = True) -> XRays:
    """A folder or an .npz file. labelled: with the labels of all images; else without any.

    Raises UserError for what is missing, damaged or contradictory.
    """
    if medmnist.is_archive(str(path)):
        data = load_archive(path)
        return data if labelled else XRays(data.names, data.images, [], [], [])
    folder = path / "images"
    images = find_images(folder if labelled or folder.is_dir() else path)
    if not labelled:
        return XRays(list(images), list(images.values()), [], [], [])
    names, labels, classes, parts = read_labels(path, images)
    return XRays(names, [images[name] for name in names], labels, classes, parts)


def load_archive(path: Path) -> XRays:
    """An .npz file in the MedMNIST layout. Images are called train_00000, ..., test_00000, ...

    Raises UserError for a damaged file, and where there are not two classes.
    """
    data = medmnist.load(str(path))
    if data.num_classes != 2:
        raise UserError(f"{path} has labels of {data.num_classes} classes: expected 0 and 1.")
    order = list(zip(PARTS, medmnist.SPLITS, strict=True))
    images = np.concatenate([data.images[name] for _, name in order])
    images = images[:, None] if data.is_gray else images.transpose(0, 3, 1, 2)
    sizes = {name: len(data.labels[name]) for _, name in order}
    return XRays(
        [f"{name}_{i:05}" for name, size in sizes.items() for i in range(size)],
        torch.from_numpy(np.ascontiguousarray(images)),
        np.concatenate([data.labels[name] for _, name in order]).tolist(),
        [name.removeprefix("class ") for name in data.class_names],
        [part for part, name in order for _ in range(sizes[name])],
    )


def read_labels(
    data: Path, images: dict[str, Path]
) -> tuple[list[str], list[int], list[str], list[str]]:
    """(names, labels, classes, parts) of labels.csv; no parts where it has no column split.

    Raises UserError that names images without a label, labels without an image, and labels or
    parts that are not understood.
    """
    path = data / "labels.csv"
    table = read_table(path, COLUMNS)
    if "split" in [name.strip().lower() for name in pd.read_csv(path, nrows=0).columns]:
        table = read_table(path, COLUMNS | {"split": ("split",)})
    names = [stem(name) for name in table["image"]]
    check_matched(path, names, images, data / "images")
    classes = class_names(table["label"], path)
    negative = [name for name in classes if name.lower() in NEGATIVE]
    if len(classes) != 2 or len(negative) != 1:
        raise UserError(
            f"{path} has the labels {', '.join(classes)}: expected two, 0 and 1 or No finding and "
            "Pathology."
        )
    classes = sorted(classes, key=lambda name: name not in negative)
    parts = {spelling: part for part, spellings in PARTS.items() for spelling in spellings}
    given = [part.lower() for part in table["split"]] if "split" in table else []
    if unknown := sorted(set(given) - set(parts)):
        raise UserError(f"{path} has the split {unknown[0]!r}: expected train, val or test.")
    return names, encode(table["label"], classes, path), classes, [parts[part] for part in given]


def divide(data: XRays, validation: float, test: float, seed: int) -> list[str]:
    """Each image's part: what the data says, or drawn with the same shares of both classes.

    Where the data has a test part but no validation part, that is drawn from the training images.
    Raises UserError for too few images, and for a training or validation part of one class.
    """
    parts = list(data.parts)
    if not parts:
        for place, name in enumerate(data.classes):
            if (n := data.labels.count(place)) < 3:
                raise UserError(
                    f"the class {name} has {n or 'no'} image{'' if n == 1 else 's'}: training, "
                    "validation and test need one each, so at least 3."
                )
        if validation + test >= 1:
            raise UserError(
                f"--validation {validation} and --test {test} leave no image for training: their "
                "sum must be below 1."
            )
        kept, held_out = split(data.labels, test, seed, data.classes)
        parts = ["training"] * len(data.labels)
        for i in held_out:
            parts[i] = "test"
        validation /= len(kept) / len(parts)
    if "validation" not in parts:
        kept = [i for i, part in enumerate(parts) if part == "training"]
        _, chosen = split([data.labels[i] for i in kept], validation, seed, data.classes)
        for i in chosen:
            parts[kept[i]] = "validation"
    for name in ("training", "validation"):
        labels = [label for label, part in zip(data.labels, parts, strict=True) if part == name]
        check_classes(labels, data.classes, name)
    return parts


def save_split(run: Path, names: list[str], parts: list[str]) -> None:
    """Write split.csv. Raises UserError where the run's other networks had another split."""
    path = run / "split.csv"
    table = pd.DataFrame({"image": names, "part": parts})
    if not path.exists():
        write_table(path, table)
    elif read_parts(run) != dict(zip(names, parts, strict=True)):
        raise UserError(
            f"{path} was made from other images, or by another --split-seed, --validation or "
            "--test: an ensemble needs networks that were trained on the same images. Leave these "
            "flags as they were, or name another --run."
        )


def part_of(data: XRays, run: Path, part: str, source: Path) -> XRays:
    """The images that the run's split.csv has in that part, or all. UserError where none is."""
    return data if part == "all" else data.take(places_of(part, run, data.names, source))


class XRaySet(Dataset):
    """Items: float32 [3, S, S], normalised, and the label as float32 [] where there are labels."""

    def __init__(self, data: XRays, size: int, augment: bool = False, labelled: bool = True):
        self.images, self.labels = data.images, data.labels if labelled else []
        self.transform = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                *(augmentation() if augment else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        image = self.images[i]
        image = read_image(image) if isinstance(image, Path) else image.expand(3, -1, -1)
        image = self.transform(image)
        return (image, torch.tensor(float(self.labels[i]))) if self.labels else image


def augmentation() -> list[nn.Module]:
    return [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomRotation(10),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
    ]


def draw_spine(rng: np.random.Generator, size: int, sick: bool) -> np.ndarray:
    """float32 [S, S] in [0, 1]: six bright vertebrae on a slightly bent line, over soft tissue.

    In a sick spine one vertebra is flat and dense, a compression fracture.
    """
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    middle = 0.5 + 0.05 * rng.normal() + 0.06 * rng.normal() * np.sin(np.pi * y)
    body = 0.25 * np.exp(-(((x - middle) / 0.3) ** 2))
    picture = 0.12 + body + 0.03 * drawn.noise(rng, size, size / 4)
    picture += 0.02 * drawn.noise(rng, size, 2)
    centers = np.linspace(0.1, 0.9, 6) + 0.012 * rng.normal(size=6)
    broken = rng.integers(1, 5) if sick else -1
    for i, center in enumerate(centers):
        height = 0.055 * (1 + 0.06 * rng.normal())
        density = 0.33 * (1 + 0.1 * rng.normal())
        if i == broken:
            height, density = height * rng.uniform(0.45, 0.75), density * rng.uniform(1.0, 1.4)
        # A box with round corners: the fourth power of the distances.
        distance = ((x - middle) / 0.13) ** 4 + ((y - center) / height) ** 4
        picture += density / (1 + np.exp(np.clip(6 * (distance - 1), -50, 50)))
    return picture


def draw_data(folder: Path, n: int = 260, size: int = 64, seed: int = 0) -> None:
    """A small data set in the documented layout: a folder of gray images and labels.csv."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        sick = bool(rng.random() < 0.4)
        name = f"spine_{i:04}.png"
        drawn.save(folder / "images" / name, draw_spine(rng, size, sick))
        part = "train" if i < n * 0.6 else "val" if i < n * 0.8 else "test"
        rows.append({"image": name, "label": ("No finding", "Pathology")[sick], "split": part})
    write_table(folder / "labels.csv", pd.DataFrame(rows))
