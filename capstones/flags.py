"""The flags that the four systems share, and what their values must be."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from capstones.backbones import check_name
from pathlab.arguments import (
    not_negative_float,
    not_negative_int,
    number,
    positive_float,
    positive_int,
)

LEAST_SIZE = 32  # pixels: networks halve an image five times

share = number(float, "a share between 0 and 1, such as 0.1", lambda value: 0 < value < 1)
image_size = number(int, f"a whole number from {LEAST_SIZE}", lambda value: value >= LEAST_SIZE)


def backbone(text: str) -> str:
    """An argparse type: the name of a timm model. Raises UserError for any other."""
    check_name(text)
    return text


def comma_list(kind: Callable) -> Callable[[str], list]:
    """An argparse type: one or more values, separated by commas."""

    def parse(text: str) -> list:
        return [kind(value.strip()) for value in text.split(",")]

    return parse


def add_data_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--data, --run, and how a batch is computed: for every command that reads images."""
    add = parser.add_argument
    add("--data", type=Path, required=required, help="folder with the images and their table")
    add("--run", type=Path, help="folder of the run")
    add("--workers", type=not_negative_int, default=0, help="processes that load images")
    add("--accelerator", default="auto", help="Lightning's: auto, cpu, gpu, mps")
    add("--devices", type=positive_int, default=1, help="devices of this node, one process each")
    add("--nodes", type=positive_int, default=1, help="machines, each started with this command")
    add(
        "--precision",
        default="auto",
        choices=("auto", "32", "16-mixed", "bf16-mixed"),
        help="auto: 16-mixed on an NVIDIA GPU, 32 elsewhere",
    )


def add_start_flags(parser: argparse.ArgumentParser) -> None:
    """Where a training starts: its seed, its weights, or an earlier run."""
    add = parser.add_argument
    add("--seed", type=not_negative_int, default=0, help="random seed")
    add("--no-pretrained", action="store_true", help="start from random weights")
    add("--resume", action="store_true", help="go on with the run in --run, with its settings")


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """How long and how a network is trained; a system has defaults of its own."""
    add = parser.add_argument
    add("--epochs", type=positive_int, help="passes over the training images")
    add("--batch-size", type=positive_int, help="images in a batch")
    add("--learning-rate", "--lr", type=positive_float, help="learning rate at the start")
    add("--weight-decay", type=not_negative_float, help="weight decay of the optimizer")
    add(
        "--patience",
        type=not_negative_int,
        default=0,
        help="epochs without a new best before the training stops; 0: never stop early",
    )
    add("--clip", type=not_negative_float, default=0.0, help="largest norm of a gradient; 0: any")
    add("--accumulate", type=positive_int, default=1, help="batches for each optimizer step")
    add_start_flags(parser)


def add_batch_flag(parser: argparse.ArgumentParser) -> None:
    """--batch-size, of the commands that use a trained network."""
    parser.add_argument("--batch-size", type=positive_int, default=16, help="images in a batch")


def add_part_flag(parser: argparse.ArgumentParser, parts: Sequence[str]) -> None:
    """--part: which part of the run's split a command takes, or all."""
    kept = "images that the run kept out of its training, or (for new data) all"
    parser.add_argument("--part", choices=parts, default=parts[0], help=kept)
