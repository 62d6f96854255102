"""Which cell line? A classifier of cells in three stained channels: nucleus, microtubules, ER.

The data folder holds images/, with three gray images for each cell, and train.csv with the columns
id and cell_line:

    images/ID_nucleus.png  images/ID_microtubules.png  images/ID_er.png

The Human Protein Atlas' names are taken as well: ID_blue.png, ID_red.png and ID_yellow.png. The
three become the red, green and blue of one picture, in this order. EfficientNet-B1 with ImageNet's
weights is fine-tuned as a whole.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning import seed_everything
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from capstones import command, drawn
from capstones.backbones import make_backbone
from capstones.checkpoints import load_best, load_weights
from capstones.classifier import Classifier
from capstones.evaluation import classification_scores, predictions, report_classification
from capstones.images import find_images, mean_and_deviation, read_image, stem
from capstones.tables import (
    check_matched,
    class_names,
    encode,
    listed,
    places_of,
    read_table,
    split,
    write_table,
)
from capstones.training import Batches, fit, predict
from pathlab.arguments import positive_int
from pathlab.errors import UserError

# Our name and the Human Protein Atlas' colour, in the order of red, green, blue.
CHANNELS = (("nucleus", "blue"), ("microtubules", "red"), ("er", "yellow"))
# The Atlas' fourth channel is the protein that is studied, which says little of the cell line.
IGNORED = "green"
COLUMNS = {
    "id": ("id", "image", "image_id", "filename"),
    "cell line": ("cell_line", "cell line", "label", "class"),
}
CHECKPOINT = "efficientnet"
SUBMISSION = "submission.csv"

Files = tuple[Path, ...]  # of one cell, in the order of CHANNELS


class Cells(Dataset):
    """Cells as float32 [3, S, S], each channel normalised by its mean and deviation.

    images: uint8 [3, H, W] each, of any size. labels: a token for each cell, or None, and then
    items are tensors without labels. settings: image_size S; mean and deviation of the training
    images, three numbers each, in the range [0, 1].
    """

    def __init__(
        self,
        images: Sequence[torch.Tensor],
        labels: list[int] | None,
        settings: dict,
        augment: bool = False,
    ):
        self.images, self.labels = images, labels
        size = settings["image_size"]
        self.augment = augmentation() if augment else nn.Identity()
        self.prepare = v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.Resize((size, size), antialias=True),
                v2.Normalize(settings["mean"], settings["deviation"]),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        image = self.prepare(self.augment(self.images[i]))
        return image if self.labels is None else (image, self.labels[i])


class OnDisk(Sequence):
    """The pictures of cells, uint8 [3, H, W], read whenever they are asked for."""

    def __init__(self, cells: list[Files]):
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, i: int) -> torch.Tensor:
        return read_cell(self.cells[i])


class QuarterTurn(nn.Module):
    """Turns a picture by 90 degrees in half of all cases, exactly, without interpolation."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.rot90(1, (-2, -1)) if torch.rand(()) < 0.5 else image


def augmentation() -> nn.Module:
    """For a picture without up and down: its eight symmetries, mild shifts, zoom and brightness."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            QuarterTurn(),
            v2.RandomAffine(
                degrees=15,
                translate=(0.05, 0.05),
                scale=(0.9, 1.1),
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.ColorJitter(brightness=0.15, contrast=0.15),
        ]
    )


def find_cells(data: Path) -> dict[str, Files]:
    """Each cell's three files by its id, in order of the ids.

    Raises UserError for a name that belongs to no channel, two files of one channel, and channels
    that are missing, all by name.
    """
    folder = data / "images"
    channels = {name: place for place, names in enumerate(CHANNELS) for name in names}
    found: dict[str, dict[int, Path]] = {}
    for name, path in find_images(folder).items():
        cell, _, ending = name.rpartition("_")
        ending = ending.lower()
        if cell and ending == IGNORED:
            continue
        if not cell or ending not in channels:
            raise UserError(
                f"{path} is no channel of a cell: expected a name such as ID_{CHANNELS[0][0]}.png. "
                f"The channels are {', '.join(' or '.join(names) for names in CHANNELS)}."
            )
        files = found.setdefault(cell, {})
        if channels[ending] in files:
            raise UserError(
                f"{folder} has two images of the {CHANNELS[channels[ending]][0]} of {cell}: "
                f"{files[channels[ending]].name} and {path.name}. Keep one."
            )
        files[channels[ending]] = path
    missing = [
        f"{cell}_{CHANNELS[place][0]}.png"
        for cell in sorted(found)
        for place in range(len(CHANNELS))
        if place not in found[cell]
    ]
    if missing:
        raise UserError(
            f"{folder} lacks {listed(missing)}. Add the missing channels, or take the other "
            "channels of these cells away."
        )
    return {cell: tuple(found[cell][i] for i in range(len(CHANNELS))) for cell in sorted(found)}


def read_cell(files: Files) -> torch.Tensor:
    """One cell's channels as a picture, uint8 [3, H, W].

    Raises UserError for a damaged file, and where the channels are of different size.
    """
    channels = [read_image(path, "L") for path in files]
    for path, channel in zip(files, channels, strict=True):
        if channel.shape != channels[0].shape:
            (height, width), (h, w) = channel.shape[1:], channels[0].shape[1:]
            raise UserError(
                f"{path} has {width} x {height} pixels, but {files[0].name} has {w} x {h}: the "
                "channels of a cell must be of one size."
            )
    return torch.cat(channels)


def load_images(cells: list[Files], preload: bool) -> Sequence[torch.Tensor]:
    """The cells' pictures, kept in memory; without `preload` read anew at each use.

    Reads every file once in any case, so that a damaged one is met here. Raises as read_cell.
    """
    with ThreadPoolExecutor() as pool:
        images = tqdm(
            pool.map(read_cell, cells), "reading images", len(cells), leave=False, disable=None
        )
        if preload:
            return list(images)
        for _ in images:
            pass
    return OnDisk(cells)


def read_labels(data: Path, cells: dict[str, Files]) -> tuple[list[str], pd.Series, Path]:
    """(ids, the cell line of each, the table's path).

    Raises UserError that names cells without a label, and labels without images.
    """
    path = data / "train.csv"
    table = read_table(path, COLUMNS)
    ids = [stem(name) for name in table["id"]]
    check_matched(path, ids, cells, data / "images", "cell")
    return ids, table["cell line"], path


def train(args: argparse.Namespace) -> None:
    cells = find_cells(args.data)
    ids, lines, table = read_labels(args.data, cells)
    classes = class_names(lines, table)
    labels = encode(lines, classes, table)
    train_places, val_places = split(labels, args.validation, args.seed, classes)
    seed_everything(args.seed, verbose=False)
    model = make_backbone(args.backbone, not args.no_pretrained, num_classes=len(classes))
    images = {
        part: load_images([cells[ids[i]] for i in places], not args.no_preload)
        for part, places in (("training", train_places), ("validation", val_places))
    }
    mean, deviation = mean_and_deviation(images["training"])
    settings = {
        "backbone": args.backbone,
        "image_size": args.image_size or native_size(model),
        "classes": classes,
        "mean": mean,
        "deviation": deviation,
    }
    command.start_run(args)
    part = ["validation" if i in set(val_places) else "training" for i in range(len(ids))]
    write_table(args.run / "split.csv", pd.DataFrame({"id": ids, "part": part}))
    batches = Batches(
        Cells(images["training"], [labels[i] for i in train_places], settings, augment=True),
        Cells(images["validation"], [labels[i] for i in val_places], settings),
        args.batch_size,
        args.workers,
        args.seed,
    )

    def make_optimizer(parameters):
        return torch.optim.Adam(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)

    module = Classifier(model, len(classes), make_optimizer)
    best = fit(module, batches, args, settings, name=CHECKPOINT, monitor="val_loss", mode="min")
    scores = load_best(args.run, CHECKPOINT)["metrics"]
    print(
        f"validation loss {scores['loss']:.4f}, balanced accuracy "
        f"{scores['balanced_accuracy']:.4f}: the best weights are in {best}, each epoch's metrics "
        f"in {args.run / 'metrics.csv'}"
    )


def native_size(model: nn.Module) -> int:
    """The height, in pixels, of the images that the network's pretrained weights come from."""
    return model.pretrained_cfg["input_size"][-2]


def run_model(args: argparse.Namespace, cells: list[Files]) -> list[torch.Tensor]:
    """Probabilities [B, n_classes], batch by batch, of the run's best weights for these cells."""
    checkpoint = load_best(args.run, CHECKPOINT)
    settings = checkpoint["settings"]
    n_classes = len(settings["classes"])
    model = make_backbone(settings["backbone"], pretrained=False, num_classes=n_classes)
    load_weights(model, checkpoint)
    dataset = Cells(load_images(cells, not args.no_preload), None, settings)
    return predict(Classifier(model, n_classes, None), dataset, args, args.batch_size)


def predict_folder(args: argparse.Namespace) -> None:
    classes = load_best(args.run, CHECKPOINT)["settings"]["classes"]
    cells = find_cells(args.data)
    tokens = torch.cat(run_model(args, list(cells.values()))).argmax(1)
    path = args.run / SUBMISSION
    lines = [classes[token] for token in tokens]
    write_table(path, pd.DataFrame({"id": list(cells), "cell_line": lines}))
    print(f"the cell lines of {len(cells)} cells: {path}")


def evaluate(args: argparse.Namespace) -> None:
    classes = load_best(args.run, CHECKPOINT)["settings"]["classes"]
    cells = find_cells(args.data)
    ids, lines, table = read_labels(args.data, cells)
    labels = encode(lines, classes, table)
    kept = places_of(args.part, args.run, ids, args.data, "id")
    ids, labels = [ids[i] for i in kept], [labels[i] for i in kept]
    test = predictions(run_model(args, [cells[name] for name in ids]), labels, args.part)
    balanced = classification_scores(test, classes)["balanced_accuracy"]
    print(f"balanced accuracy {balanced:.4f} on {len(ids)} cells")
    report_classification(test, classes, args.run / "evaluation")


DRAWN_LINES = ("A-431", "A549", "HEK 293", "HeLa", "MCF7", "PC-3", "RT4", "U-2 OS", "U-251 MG")


def draw_cell(rng: np.random.Generator, line: int, size: int) -> list[np.ndarray]:
    """Three channels, float32 [S, S] in [0, 1], of one of the nine lines.

    Lines differ in the size of the nucleus (three steps) and in the coarseness of the microtubules
    and the brightness of the ER (three steps), which single cells scatter around.
    """
    row, column = divmod(line, 3)
    center = tuple(size / 2 + size * 0.06 * rng.normal(size=2))
    radius = size * (0.36 + 0.03 * rng.normal())
    cell = drawn.blob(rng, size, radius, 0.15, center)
    nucleus = drawn.blob(rng, size, radius * (0.3 + 0.15 * row + 0.03 * rng.normal()), 0.1, center)
    nucleus = nucleus * cell
    cytoplasm = cell * (1 - 0.8 * nucleus)
    threads = np.abs(drawn.noise(rng, size, 3 * 2**column))
    brightness = 0.25 + 0.25 * column + 0.05 * rng.normal()
    er = brightness * (1 + 0.25 * drawn.noise(rng, size, 8))
    background = 0.04 + 0.02 * drawn.noise(rng, size, 2)
    stain = 0.65 + 0.1 * rng.normal()
    return [
        background + stain * nucleus * (1 + 0.1 * drawn.noise(rng, size, 6)),
        background + stain * cytoplasm * (1 - threads).clip(0, 1),
        background + cytoplasm * er,
    ]


def draw_data(folder: Path, n: int = 270, size: int = 64, seed: int = 0) -> None:
    """A small data set in the documented layout; the cells of test/ are not in the table."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        line = i % len(DRAWN_LINES)
        where = folder / "test" if i >= n * 5 // 6 else folder
        name = f"cell_{i:04}"
        for (channel, _), picture in zip(CHANNELS, draw_cell(rng, line, size), strict=True):
            drawn.save(where / "images" / f"{name}_{channel}.png", picture)
        if where == folder:
            rows.append({"id": name, "cell_line": DRAWN_LINES[line]})
    write_table(folder / "train.csv", pd.DataFrame(rows))


def demo(args: argparse.Namespace) -> None:
    data = args.output / "data"
    draw_data(data)
    run = ["--run", str(args.output / "run")]
    small = ["--no-pretrained", "--backbone", "resnet10t", "--image-size", "64"]
    small += ["--batch-size", "16", "--epochs", "10", "--learning-rate", "1e-3"]
    command.run_demo(
        main,
        "cell_lines",
        [
            ["train", "--data", str(data), *run, *small],
            ["evaluate", "--data", str(data), *run],
            ["predict", "--data", str(data / "test"), *run],
        ],
    )


def main(arguments: list[str]) -> None:
    parser, add_command = command.build_parser("cell_lines", __doc__.splitlines()[0])

    def add_reading_flags(added: argparse.ArgumentParser) -> None:
        command.add_data_flags(added, "cell_lines")
        added.add_argument(
            "--no-preload",
            action="store_true",
            help="read images anew at each use, where they do not fit into the memory",
        )

    added = add_command("train", "fine-tune a network on labelled cells", train)
    add_reading_flags(added)
    command.add_training_flags(
        added, epochs=30, batch_size=64, learning_rate=7e-5, weight_decay=1e-6
    )
    add = added.add_argument
    add("--backbone", default="efficientnet_b1", help="any network of timm")
    add(
        "--image-size",
        type=positive_int,
        help="pixels; left out: the size that the backbone was pretrained with",
    )
    add("--validation", type=command.share, default=0.3, help="share of the cells")

    added = add_command("predict", "write the cell line of every cell of a folder", predict_folder)
    add_reading_flags(added)
    added.add_argument("--batch-size", type=positive_int, default=64, help="cells in a batch")

    added = add_command("evaluate", "score the model on labelled cells", evaluate)
    add_reading_flags(added)
    added.add_argument("--batch-size", type=positive_int, default=64, help="cells in a batch")
    command.add_part_flag(added)

    added = add_command("demo", "draw a small data set and do all of it, offline", demo)
    command.add_demo_flags(added, "cell_lines")

    args = command.parse(parser, arguments)
    args.execute(args)
