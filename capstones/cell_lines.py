"""Which cell line? A classifier of cells in three stained channels: nucleus, microtubules, ER.

The data folder holds images/, with three gray images for each cell, and train.csv with the columns
id and cell_line:

    images/ID_nucleus.png  images/ID_microtubules.png  images/ID_er.png

The Human Protein Atlas' names are taken as well: ID_blue.png, ID_red.png and ID_yellow.png. The
three become the red, green and blue of one picture, in this order. EfficientNet-B1 with ImageNet's
weights is fine-tuned as a whole.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pandas import DataFrame
from torch import nn
from torchvision.transforms import v2

from capstones import drawings, flags
from capstones.backbones import native_size
from capstones.driver import System
from capstones.folder import Channel, Layout
from capstones.images import mean_and_deviation, read_all, read_image, to_float
from capstones.network import Network
from pathlab.arguments import positive_int
from pathlab.errors import UserError

# Our name and the Human Protein Atlas' colour, in the order of red, green, blue.
CHANNELS = (("nucleus", "blue"), ("microtubules", "red"), ("er", "yellow"))
DOCUMENTED = {"epochs": 30, "batch_size": 64, "learning_rate": 7e-5, "weight_decay": 1e-6}


def read_cell(cell: tuple[Path, ...] | torch.Tensor) -> torch.Tensor:
    """A cell's channels as a picture, uint8 [3, H, W]: of its three files, or read before.

    Raises UserError for a damaged file, and where the channels are of different size.
    """
    if isinstance(cell, torch.Tensor):
        return cell
    channels = [read_image(path, "L") for path in cell]
    for path, channel in zip(cell, channels, strict=True):
        if channel.shape != channels[0].shape:
            (height, width), (h, w) = channel.shape[1:], channels[0].shape[1:]
            raise UserError(
                f"{path} has {width} x {height} pixels, but {cell[0].name} has {w} x {h}: the "
                "channels of a cell must be of one size."
            )
    return torch.cat(channels)


class QuarterTurn(nn.Module):
    """Turns a picture by 90 degrees in half of all cases, exactly, without interpolation."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[..., H, W] -> the same, or [..., W, H]."""
        return image.rot90(1, (-2, -1)) if torch.rand(()) < 0.5 else image


def augmentation() -> nn.Module:
    """For a picture without up and down: its eight symmetries, mild shifts, zoom and brightness."""
    affine = v2.RandomAffine(
        degrees=15,
        translate=(0.05, 0.05),
        scale=(0.9, 1.1),
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            QuarterTurn(),
            affine,
            v2.ColorJitter(brightness=0.15, contrast=0.15),
        ]
    )


class CellNetwork(Network):
    """A timm model, trained as a whole on pictures normalised by the training images."""

    name = "efficientnet"
    flags = ("backbone",)
    optimizer = torch.optim.Adam

    def settings(self, args: Namespace, samples: DataFrame) -> dict:
        """Also each channel's mean and deviation, in the range [0, 1], over the training images."""
        training = samples.loc[samples["part"] == "training", "images"]
        mean, deviation = mean_and_deviation(map(read_cell, training))
        size = args.image_size or native_size(args.backbone)
        common = super().settings(args, samples)
        return {**common, "image_size": size, "mean": mean, "deviation": deviation}

    def transform(self, settings: dict, augment: bool) -> Callable:
        """From a cell to float32 [3, S, S]: augmented, resized, normalised."""
        resize = v2.Resize((settings["image_size"],) * 2, antialias=True)
        before = [augmentation()] if augment else []
        normalise = to_float(settings["mean"], settings["deviation"]).transforms
        return v2.Compose([read_cell, *before, normalise[0], resize, normalise[1]])


class CellLines(System):
    """Which of nine cell lines? From three stained channels."""

    name = "cell_lines"
    purposes: ClassVar = {
        "train": "fine-tune a network on labelled cells",
        "predict": "write the cell line of every cell of a folder",
        "evaluate": "score the model on labelled cells",
    }
    defaults: ClassVar = {
        "train": DOCUMENTED,
        "predict": {"batch_size": 64},
        "evaluate": {"batch_size": 64},
    }
    network = CellNetwork()
    layout = Layout(
        "train.csv",
        {
            "id": ("id", "image", "image_id", "filename"),
            "cell line": ("cell_line", "cell line", "label", "class"),
        },
        channels=tuple(Channel("images", names) for names in CHANNELS),
        ignored="green",  # the protein that the Atlas studies, which says little of the cell line
    )
    split_columns = ("id", "part")
    submission = "submission.csv"
    draw = staticmethod(drawings.draw_cell_lines)
    demo_commands = (
        "train --data {data} --no-pretrained --backbone resnet10t --image-size 64 --batch-size 16 "
        "--epochs 10 --learning-rate 1e-3",
        "evaluate --data {data}",
        "predict --data {data}/test",
    )

    def add_flags(self, command: str, parser: ArgumentParser, data_required: bool = True) -> None:
        """All read cells; `train` has more."""
        super().add_flags(command, parser, data_required)
        add = parser.add_argument
        rereads = "read images anew at each use, where they do not fit into the memory"
        add("--no-preload", action="store_true", help=rereads)
        if command != "train":
            return
        add(
            "--backbone", type=flags.backbone, default="efficientnet_b1", help="any network of timm"
        )
        native = "pixels; left out: the size that the backbone was pretrained with"
        add("--image-size", type=positive_int, help=native)
        add("--validation", type=flags.share, default=0.3, help="share of the cells")

    def load(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """The samples with their pictures in memory; with --no-preload with their files."""
        if args.no_preload:
            read_all(samples["images"], lambda cell: read_cell(cell) is None)
            return samples
        return samples.assign(images=read_all(samples["images"], read_cell))

    def results(self, samples: DataFrame, found: np.ndarray, classes: list[str]) -> DataFrame:
        """Each cell's id and line."""
        lines = np.array(classes)[found.argmax(1)]
        return DataFrame({"id": samples.index, "cell_line": lines})


main = CellLines().main
