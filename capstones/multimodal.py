"""Is a cell cancerous? A classifier of bright-field and fluorescence image pairs.

The data folder holds BF/ and FL/, where a pair has the same name, and train.csv with the columns
name and diagnosis (0 and 1, or healthy and cancerous). Both images become one tensor of six
channels. ConvNeXt-Large with ImageNet's weights is fine-tuned: head and last stage only.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning import seed_everything
from torch import nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from capstones import command, drawn
from capstones.backbones import make_backbone
from capstones.checkpoints import load_best, load_weights
from capstones.classifier import Classifier
from capstones.evaluation import predictions, report_classification
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

FOLDERS = {"both": ("BF", "FL"), "bf": ("BF",), "fl": ("FL",)}
COLUMNS = {
    "name": ("name", "id", "image", "filename"),
    "diagnosis": ("diagnosis", "label", "class"),
}
POSITIVE = ("1", "cancerous", "cancer", "malignant")
QUICK_IMAGES = 100
SUBMISSION = "submission_probs_convnext.csv"


class Pairs(Dataset):
    """Pairs of images, float32 [6, S, S], BF's channels first; or one modality's [3, S, S].

    paths: for each pair, its files in the order of the channels. labels: 0 or 1 for each pair, or
    None, and then items are tensors without labels.
    """

    def __init__(
        self,
        paths: list[tuple[Path, ...]],
        labels: list[int] | None,
        size: int,
        augment: bool = False,
    ):
        self.paths, self.labels = paths, labels
        self.geometry = geometry(size) if augment else v2.Resize((size, size), antialias=True)
        self.colour = v2.ColorJitter(0.2, 0.2, 0.2, 0.05) if augment else nn.Identity()
        self.to_float = v2.Compose(
            [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        images = [tv_tensors.Image(read_image(path)) for path in self.paths[i]]
        images = self.geometry(images)  # one draw for the whole pair
        images = torch.cat([self.to_float(self.colour(image)) for image in images])
        images = images.as_subclass(torch.Tensor)
        return images if self.labels is None else (images, self.labels[i])


def geometry(size: int) -> nn.Module:
    """Rotation, flip, affine and crop. A list of images that is given at once moves as one."""
    return v2.Compose(
        [
            v2.RandomRotation(40),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(degrees=0, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=5),
            v2.RandomResizedCrop((size, size), scale=(0.8, 1.0), antialias=True),
        ]
    )


def make_model(settings: dict, pretrained: bool) -> nn.Module:
    """A timm model for the modalities' channels and two classes."""
    channels = 3 * len(FOLDERS[settings["modalities"]])
    return make_backbone(settings["backbone"], pretrained, in_chans=channels, num_classes=2)


def freeze_all_but_the_end(model: nn.Module) -> None:
    """Freeze what stands before the last stage. That stage, its norms and the head are trained."""
    last_stage = model.feature_info[-1]["module"]
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(f"{last_stage}.")
        parameter.requires_grad = reached


def find_pairs(data: Path, modalities: str) -> dict[str, tuple[Path, ...]]:
    """Each pair's files by name. Raises UserError that names the images without a partner."""
    found = [find_images(data / folder) for folder in FOLDERS[modalities]]
    for folder, images, others in zip(FOLDERS[modalities], found, found[::-1], strict=True):
        if missing := sorted(set(others) - set(images)):
            raise UserError(
                f"{data / folder} has no partner for {listed(missing)}. Add the missing images, "
                "or take their partners away, or use one modality (--modalities bf or fl)."
            )
    return {name: tuple(images[name] for images in found) for name in found[0]}


def read_labels(data: Path, pairs: dict[str, tuple]) -> tuple[list[str], list[int], list[str]]:
    """(names, labels, classes), the healthy class first.

    Raises UserError that names pairs without a label, and labels without an image.
    """
    path = data / "train.csv"
    table = read_table(path, COLUMNS)
    names = [stem(name) for name in table["name"]]
    check_matched(path, names, pairs, data)
    classes = class_names(table["diagnosis"], path)
    positive = [name for name in classes if name.lower() in POSITIVE]
    if len(classes) != 2 or len(positive) != 1:
        raise UserError(
            f"{path} has the diagnoses {', '.join(classes)}: expected two, 0 and 1 or healthy and "
            "cancerous."
        )
    classes = sorted(classes, key=lambda name: name in positive)
    return names, encode(table["diagnosis"], classes, path), classes


def train(args: argparse.Namespace) -> None:
    pairs = find_pairs(args.data, args.modalities)
    names, labels, classes = read_labels(args.data, pairs)
    if args.quick and len(names) > QUICK_IMAGES:
        _, kept = split(labels, QUICK_IMAGES / len(names), args.seed, classes)
        names, labels = [names[i] for i in kept], [labels[i] for i in kept]
    train_places, val_places = split(labels, args.validation, args.seed, classes)
    check_images(path for name in names for path in pairs[name])
    settings = {
        "backbone": args.backbone,
        "modalities": args.modalities,
        "image_size": args.image_size,
        "classes": classes,
    }
    seed_everything(args.seed, verbose=False)
    model = make_model(settings, pretrained=not args.no_pretrained)
    if not args.no_pretrained:
        freeze_all_but_the_end(model)
    command.start_run(args)
    part = ["validation" if i in set(val_places) else "training" for i in range(len(names))]
    write_table(args.run / "split.csv", pd.DataFrame({"name": names, "part": part}))

    def make_set(places: list[int], augment: bool) -> Pairs:
        files = [pairs[names[i]] for i in places]
        return Pairs(files, [labels[i] for i in places], args.image_size, augment)

    train_labels = torch.tensor([labels[i] for i in train_places])
    batches = Batches(
        make_set(train_places, augment=True),
        make_set(val_places, augment=False),
        args.batch_size,
        args.workers,
        args.seed,
        weights=(1 / train_labels.bincount().double())[train_labels],
    )

    def make_optimizer(parameters):
        adam = torch.optim.Adam(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
        restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(adam, args.restart)
        return {"optimizer": adam, "lr_scheduler": restarts}

    module = Classifier(model, n_classes=2, make_optimizer=make_optimizer)
    best = fit(module, batches, args, settings, name="convnext", monitor="val_loss", mode="min")
    print(f"the best weights are in {best}, each epoch's metrics in {args.run / 'metrics.csv'}")


def run_model(args: argparse.Namespace, pairs: dict, names: list[str]) -> tuple[list, list[str]]:
    """(batches of probabilities [B, 2], classes) of the run's best weights for these pairs."""
    checkpoint = load_best(args.run, "convnext")
    settings = checkpoint["settings"]
    model = load_weights(make_model(settings, pretrained=False), checkpoint)
    check_images(path for name in names for path in pairs[name])
    dataset = Pairs([pairs[name] for name in names], None, settings["image_size"])
    return predict(Classifier(model, 2, None), dataset, args, args.batch_size), settings["classes"]


def predict_folder(args: argparse.Namespace) -> None:
    settings = load_best(args.run, "convnext")["settings"]
    pairs = find_pairs(args.data, settings["modalities"])
    names = list(pairs)
    batches, _ = run_model(args, pairs, names)
    probabilities = torch.cat(batches)[:, 1].double().numpy()
    path = args.run / SUBMISSION
    write_table(path, pd.DataFrame({"name": names, "probability": probabilities.round(6)}))
    print(f"probabilities of cancer for {len(names)} cells: {path}")


def evaluate(args: argparse.Namespace) -> None:
    settings = load_best(args.run, "convnext")["settings"]
    pairs = find_pairs(args.data, settings["modalities"])
    names, labels, classes = read_labels(args.data, pairs)
    if classes != settings["classes"]:
        raise UserError(
            f"the model knows the classes {', '.join(settings['classes'])}, not "
            f"{', '.join(classes)}."
        )
    kept = places_of(args.part, args.run, names, args.data, "name")
    names, labels = [names[i] for i in kept], [labels[i] for i in kept]
    batches, _ = run_model(args, pairs, names)
    test = predictions(batches, labels, args.part)
    report_classification(test, classes, args.run / "evaluation")


def draw_data(folder: Path, n: int = 120, size: int = 96, seed: int = 0) -> None:
    """A small data set in the documented layout: two test pairs in three are labelled.

    A cancerous cell is larger and its outline rougher in bright field; in fluorescence its nucleus
    fills more of the cell. Either picture alone leaves doubt.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        sick = int(rng.random() < 0.4)
        where = folder / "test" if i % 3 == 2 else folder
        radius = size * (0.24 + 0.05 * sick + 0.03 * rng.normal())
        center = tuple(size / 2 + size * 0.08 * rng.normal(size=2))
        cell = drawn.blob(rng, size, radius, 0.08 + 0.12 * sick, center)
        share = 0.42 + 0.12 * sick + 0.06 * rng.normal()
        nucleus = drawn.blob(rng, size, radius * share, 0.1, center) * cell
        grain = 0.03 * drawn.noise(rng, size, 3) + 0.04 * drawn.noise(rng, size, 30)
        bright = 0.72 - 0.18 * cell - 0.1 * nucleus + grain * (0.5 + cell)
        glow = 0.35 * cell * (1 + 0.3 * drawn.noise(rng, size, 5)) + 0.02 * rng.normal()
        colours = np.stack([0.2 * glow, glow, 0.1 * glow + 0.7 * nucleus], axis=-1)
        name = f"cell_{i:04}"
        drawn.save(where / "BF" / f"{name}.png", np.repeat(bright[..., None], 3, axis=-1))
        drawn.save(where / "FL" / f"{name}.png", colours)
        if where == folder:
            rows.append({"name": name, "diagnosis": sick})
    write_table(folder / "train.csv", pd.DataFrame(rows))


def demo(args: argparse.Namespace) -> None:
    data = args.output / "data"
    draw_data(data)
    run = ["--run", str(args.output / "run")]
    small = ["--no-pretrained", "--backbone", "resnet10t", "--image-size", "64"]
    small += ["--batch-size", "8", "--epochs", "10", "--learning-rate", "1e-3"]
    small += ["--validation", "0.25"]
    command.run_demo(
        main,
        "multimodal",
        [
            ["train", "--data", str(data), *run, "--quick", *small],
            ["evaluate", "--data", str(data), *run],
            ["predict", "--data", str(data / "test"), *run],
        ],
    )


def main(arguments: list[str]) -> None:
    parser, add_command = command.build_parser("multimodal", __doc__.splitlines()[0])

    added = add_command("train", "fine-tune a network on labelled pairs", train)
    command.add_data_flags(added, "multimodal")
    command.add_training_flags(
        added,
        epochs=30,
        batch_size=4,
        learning_rate=1e-4,
        weight_decay=0.0,
        patience=8,
        clip=1.0,
    )
    add = added.add_argument
    add("--backbone", default="convnext_large", help="any network of timm")
    add("--image-size", type=positive_int, default=384, help="pixels")
    add("--modalities", choices=tuple(FOLDERS), default="both", help="what the network sees")
    add("--validation", type=command.share, default=0.1, help="share of the images")
    add("--restart", type=positive_int, default=10, help="epochs from one warm restart to the next")
    add("--quick", action="store_true", help=f"train on {QUICK_IMAGES} images only")

    added = add_command("predict", "write the probability of cancer of every pair", predict_folder)
    command.add_data_flags(added, "multimodal")
    added.add_argument("--batch-size", type=positive_int, default=16, help="images in a batch")

    added = add_command("evaluate", "score the model on labelled pairs", evaluate)
    command.add_data_flags(added, "multimodal")
    added.add_argument("--batch-size", type=positive_int, default=16, help="images in a batch")
    command.add_part_flag(added)

    added = add_command("demo", "draw a small data set and do all of it, offline", demo)
    command.add_demo_flags(added, "multimodal")

    args = command.parse(parser, arguments)
    args.execute(args)
