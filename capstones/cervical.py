"""Cervical cells: a U-Net with two heads segments cytoplasm and nucleus, a classifier uses both.

The data folder holds images/, masks/ with a file of the same name for each image (255 nucleus, 128
cytoplasm, 0 background), and labels.csv with the columns image and label. Stage one, `segment`,
trains DualHeadAttConvNeXtUNet and writes two masks for every image, NAME_cytoplasm.png and
NAME_nucleus.png (0 and 255, in the image's own size), into RUN/outputs/masks. Stage two,
`classify`, trains ConvNeXtAttentionClassifier on the image and these masks.
"""

import argparse
import io
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from lightning import seed_everything
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch import nn

from capstones import command
from capstones.cervical_data import (
    HEADS,
    Cells,
    choose_classes,
    draw_data,
    mask_paths,
    own_size,
    read_cells,
    read_masks,
    read_predicted,
    split_by_fold,
)
from capstones.cervical_models import (
    ConvNeXtAttentionClassifier,
    DualHeadAttConvNeXtUNet,
    Segmenter,
    cosine,
    resize,
)
from capstones.cervical_scores import score_masks
from capstones.checkpoints import best_path, load_best, load_weights
from capstones.classifier import Classifier
from capstones.evaluation import predictions, report_classification
from capstones.images import check_images, find_images
from capstones.tables import encode, places_of, write_table
from capstones.training import Batches, fit, predict
from pathlab.arguments import int_from_two, not_negative_int, number, positive_int
from pathlab.errors import UserError
from pathlab.files import make_folder, write_atomically, write_json

STAGES = ("segmentation", "classification")  # the names of their checkpoints
SMALLEST = 32  # pixels: the encoder's last stride

image_size = number(int, f"a whole number from {SMALLEST}", lambda value: value >= SMALLEST)


def mask_reader(
    settings: dict, names: list[str], predicted: Path, data: Path
) -> Callable[[int], torch.Tensor] | None:
    """What Cells reads the classifier's masks with; None for --masks none.

    predicted: the folder of stage one's masks; data: the data set's folder, for the true ones.
    """
    if settings["masks"] == "none":
        return None
    if settings["masks"] == "predicted":
        return lambda i: read_predicted(predicted, names[i])
    files = find_images(data / "masks")
    return lambda i: read_masks(files[names[i]], settings["cytoplasm"])


def begin(args: argparse.Namespace, names: list[str], labels: list[str], parts: list[str]) -> None:
    """Make the run's folder and write down the split."""
    command.start_run(args)
    table = pd.DataFrame({"image": names, "label": labels, "part": parts})
    write_table(args.run / "split.csv", table)


def adamw(args: argparse.Namespace) -> Callable:
    """What makes the optimizer and its schedule from the parameters, for both stages."""

    def make(parameters):
        optimizer = torch.optim.AdamW(
            parameters, lr=args.learning_rate, weight_decay=args.weight_decay
        )
        return {"optimizer": optimizer, "lr_scheduler": cosine(optimizer, args.epochs)}

    return make


def segment(args: argparse.Namespace) -> None:
    images, names, labels = read_cells(args.data, with_masks=True)
    parts = split_by_fold(args, names, labels)
    settings = {
        "backbone": args.backbone,
        "image_size": args.image_size,
        "cytoplasm": args.cytoplasm,
    }
    seed_everything(args.seed, verbose=False)
    model = DualHeadAttConvNeXtUNet(args.backbone, not args.no_pretrained)
    begin(args, names, labels, parts)
    files = find_images(args.data / "masks")

    def make_set(part: str, augment: bool) -> Cells:
        chosen = [name for name, its in zip(names, parts, strict=True) if its == part]
        return Cells(
            [images[name] for name in chosen],
            None,
            args.image_size,
            lambda i: read_masks(files[chosen[i]], args.cytoplasm),
            augment,
        )

    batches = Batches(
        make_set("training", augment=True),
        make_set("validation", augment=False),
        args.batch_size,
        args.workers,
        args.seed,
    )
    best = fit(
        Segmenter(model, adamw(args)),
        batches,
        args,
        settings,
        name="segmentation",
        monitor="val_dice",
        table="logs/segmentation/metrics.csv",
    )
    folder = args.run / "outputs" / "masks"
    export_masks(args, images, folder)
    print(f"the best weights are in {best}, masks of all {len(images)} images in {folder}")


def export_masks(args: argparse.Namespace, images: dict[str, Path], folder: Path) -> dict:
    """Write the masks that the run's stage one predicts for these images; its settings.

    Each head has a file of 0 and 255 in its image's own size; the heads are independent, so a pixel
    may be in both. Raises UserError for a missing checkpoint or a file that cannot be written.
    """
    checkpoint = load_best(args.run, "segmentation")
    settings = checkpoint["settings"]
    if rank_zero_only.rank != 0:  # another process of the same training
        return settings
    make_folder(folder)
    names = list(images)

    def write(place: int, maps: torch.Tensor) -> None:
        name = names[place]
        masks = resize(maps[None], own_size(images[name]))[0] > 0.5
        for path, mask in zip(mask_paths(folder, name), masks, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(mask.byte().mul(255).numpy()).save(buffer, format="png")
            write_atomically(path, buffer.getvalue())

    model = load_weights(DualHeadAttConvNeXtUNet(settings["backbone"], False), checkpoint)
    dataset = Cells([images[name] for name in names], range(len(names)), settings["image_size"])
    predict(Segmenter(model, None, write), dataset, args, args.batch_size)
    return settings


def classify(args: argparse.Namespace) -> None:
    images, names, labels = read_cells(args.data, with_masks=args.masks == "true")
    parts = split_by_fold(args, names, labels)
    classes, left_out = choose_classes(labels, args)
    settings = {
        "backbone": args.backbone,
        "image_size": args.image_size,
        "masks": args.masks,
        "cytoplasm": args.cytoplasm,
        "classes": classes,
        "left_out": left_out,
    }
    kept = [i for i, label in enumerate(labels) if label not in left_out]
    places = {part: [i for i in kept if parts[i] == part] for part in set(parts)}
    seed_everything(args.seed, verbose=False)
    model = make_classifier(settings, not args.no_pretrained)
    folder = args.run / "outputs" / "masks"
    if args.masks == "predicted":
        load_best(args.run, "segmentation")
    begin(args, names, labels, parts)
    if args.masks == "predicted":  # with the best weights of now, whatever was written before
        export_masks(args, images, folder)

    def make_set(part: str, augment: bool) -> Cells:
        chosen = [names[i] for i in places[part]]
        return Cells(
            [images[name] for name in chosen],
            encode([labels[i] for i in places[part]], classes, args.data),
            args.image_size,
            mask_reader(settings, chosen, folder, args.data),
            augment,
        )

    batches = Batches(
        make_set("training", augment=True),
        make_set("validation", augment=False),
        args.batch_size,
        args.workers,
        args.seed,
    )
    best = fit(
        Classifier(model, len(classes), adamw(args)),
        batches,
        args,
        settings,
        name="classification",
        monitor="val_f1",
        table="logs/classification/metrics.csv",
    )
    print(f"the best weights are in {best}, each epoch's metrics in {args.run}/logs/classification")


def make_classifier(settings: dict, pretrained: bool) -> nn.Module:
    channels = 3 if settings["masks"] == "none" else 3 + len(HEADS)
    return ConvNeXtAttentionClassifier(
        settings["backbone"], channels, len(settings["classes"]), pretrained
    )


def train(args: argparse.Namespace) -> None:
    """Both stages. What a resumed run has finished is not done again."""
    _, names, labels = read_cells(args.data, with_masks=True)
    split_by_fold(args, names, labels)
    choose_classes(labels, args)  # before hours of stage one
    shared = ["--data", str(args.data), "--run", str(args.run), "--workers", str(args.workers)]
    shared += ["--accelerator", args.accelerator, "--devices", str(args.devices)]
    shared += ["--nodes", str(args.nodes), "--precision", args.precision]
    shared += ["--folds", str(args.folds), "--fold", str(args.fold), "--seed", str(args.seed)]
    shared += ["--backbone", args.backbone, "--cytoplasm", args.cytoplasm]
    shared += ["--test"] * args.test + ["--no-pretrained"] * args.no_pretrained
    smallest = ["--smallest-class", str(args.smallest_class)]
    stages = {
        "segment": [*shared, *shlex.split(args.segment_with)],
        "classify": [*shared, *smallest, *shlex.split(args.classify_with)],
    }
    parser = make_parser()
    for stage, flags in stages.items():
        parser.parse_args([stage, *flags])

    def begun(stage: str) -> bool:
        return args.resume and (args.run / f"{stage}-{command.SETTINGS}").exists()

    command.start_run(args)
    if begun("classify"):  # then stage one is complete
        del stages["segment"]
    try:
        for stage, flags in stages.items():
            main([stage, *flags, *["--resume"] * begun(stage)])
    except UserError:
        if not (args.run / f"segment-{command.SETTINGS}").exists():  # nothing has begun
            (args.run / f"train-{command.SETTINGS}").unlink(missing_ok=True)
        raise


def trained_stages(run: Path) -> list[str]:
    """The stages whose checkpoints the run has.

    Raises UserError where it has none, or a classifier of predicted masks without stage one.
    """
    stages = [stage for stage in STAGES if best_path(run, stage).exists()]
    if stages != ["classification"] or (
        load_best(run, "classification")["settings"]["masks"] == "predicted"
    ):
        load_best(run, "segmentation")
    return stages


def evaluate(args: argparse.Namespace) -> None:
    """Score the stages that the run has."""
    stages = trained_stages(args.run)
    images, names, labels = read_cells(args.data, with_masks=(args.data / "masks").is_dir())
    chosen = places_of(args.part, args.run, names, args.data)
    names, labels = [names[i] for i in chosen], [labels[i] for i in chosen]
    images = {name: images[name] for name in names}
    folder = args.run / "evaluation"
    make_folder(folder)
    scores = {"part": args.part}
    if "segmentation" in stages:
        settings = export_masks(args, images, folder / "masks")
        if (args.data / "masks").is_dir():
            scores["segmentation"] = score_masks(args.data, images, folder, settings["cytoplasm"])
        else:
            print(f"there is no {args.data / 'masks'}: the segmentation was not scored.")
    if "classification" in stages:
        batches, settings, kept = run_classifier(args, images, labels, folder / "masks")
        truth = encode([labels[i] for i in kept], settings["classes"], args.data / "labels.csv")
        scores["classification"] = report_classification(
            predictions(batches, truth, args.part), settings["classes"], folder
        )
    write_json(folder / "evaluation.json", scores)


def run_classifier(
    args: argparse.Namespace, images: dict[str, Path], labels: list[str] | None, masks: Path
) -> tuple[list, dict, list[int]]:
    """(batches of probabilities, settings, places of the images that they are for).

    Left out are images whose label is of a class that the training left out. masks: the folder of
    the predicted ones.
    """
    checkpoint = load_best(args.run, "classification")
    settings = checkpoint["settings"]
    model = load_weights(make_classifier(settings, pretrained=False), checkpoint)
    names = list(images)
    left_out = [] if labels is None else settings["left_out"]
    kept = [i for i in range(len(names)) if not left_out or labels[i] not in left_out]
    names = [names[i] for i in kept]
    dataset = Cells(
        [images[name] for name in names],
        range(len(names)),
        settings["image_size"],
        mask_reader(settings, names, masks, args.data),
    )
    module = Classifier(model, len(settings["classes"]), None)
    return predict(module, dataset, args, args.batch_size), settings, kept


def predict_folder(args: argparse.Namespace) -> None:
    images = find_images(args.data)
    check_images(images.values())
    folder = args.run / "predictions"
    stages = trained_stages(args.run)
    if "classification" in stages:
        settings = load_best(args.run, "classification")["settings"]
        if settings["masks"] == "true":
            raise UserError(
                f"the classifier in {args.run} was trained with true masks, which new images do "
                "not have: train one with --masks predicted or none."
            )
    make_folder(folder)
    if "segmentation" in stages:
        export_masks(args, images, folder / "masks")
        print(f"masks of {len(images)} images: {folder / 'masks'}")
    if "classification" in stages:
        batches, settings, _ = run_classifier(args, images, None, folder / "masks")
        probabilities = torch.cat(batches).double().numpy()
        table = pd.DataFrame({"image": list(images)})
        table["predicted"] = [settings["classes"][i] for i in probabilities.argmax(1)]
        for i, name in enumerate(settings["classes"]):
            table[f"probability_{name}"] = probabilities[:, i].round(6)
        write_table(folder / "predictions.csv", table)
        print(f"classes of {len(images)} images: {folder / 'predictions.csv'}")


def demo(args: argparse.Namespace) -> None:
    data, run = args.output / "data", ["--run", str(args.output / "run")]
    draw_data(data)
    small = ["--no-pretrained", "--backbone", "test_convnext", "--image-size", "64"]
    small += ["--lr", "2e-3", "--folds", "4"]
    stages = [
        ["segment", "--data", str(data), *run, *small, "--epochs", "4"],
        ["classify", "--data", str(data), *run, *small, "--epochs", "15"],
        ["evaluate", "--data", str(data), *run],
        ["predict", "--data", str(data / "images"), *run],
    ]
    command.run_demo(main, "cervical", stages)


def add_split_flags(parser: argparse.ArgumentParser) -> None:
    """How images are split, what cytoplasm means, and the backbone: for every training."""
    add = parser.add_argument
    add("--folds", type=int_from_two, default=5, help="equal parts of the images")
    add("--fold", type=not_negative_int, default=0, help="the part that is for validation")
    add("--test", action="store_true", help="keep the next part away from training, too, as a test")
    add("--backbone", default="convnext_tiny", help="a convnext of timm")
    add(
        "--cytoplasm",
        choices=("ring", "cell"),
        default="ring",
        help="what its masks hold: the cytoplasm around the nucleus, or the whole cell",
    )


def add_class_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smallest-class",
        type=positive_int,
        default=1,
        help="leave the classes with fewer images out of the classification",
    )


def make_parser() -> argparse.ArgumentParser:
    parser, add_command = command.build_parser("cervical", __doc__.splitlines()[0])

    added = add_command("segment", "stage one: train the U-Net and write all masks", segment)
    command.add_data_flags(added, "cervical")
    command.add_training_flags(
        added, epochs=100, batch_size=8, learning_rate=1e-4, weight_decay=0.01
    )
    add_split_flags(added)
    added.add_argument("--image-size", type=image_size, default=1024, help="pixels")

    added = add_command("classify", "stage two: train the classifier on images and masks", classify)
    command.add_data_flags(added, "cervical")
    command.add_training_flags(
        added, epochs=50, batch_size=16, learning_rate=1e-4, weight_decay=0.01
    )
    add_split_flags(added)
    add_class_flag(added)
    added.add_argument("--image-size", type=image_size, default=256, help="pixels")
    added.add_argument(
        "--masks",
        choices=("predicted", "true", "none"),
        default="predicted",
        help="channels beside the image: stage one's masks, the data's own, or none",
    )

    added = add_command("train", "segment, then classify", train)
    command.add_data_flags(added, "cervical")
    add_split_flags(added)
    add_class_flag(added)
    add = added.add_argument
    add("--segment-with", default="", help='more flags of segment, such as "--epochs 20 --lr 1e-3"')
    add("--classify-with", default="", help="more flags of classify, likewise")
    add("--seed", type=not_negative_int, default=0, help="of everything random")
    add("--no-pretrained", action="store_true", help="start from random weights")
    add("--resume", action="store_true", help="go on with the run in --run, with its settings")

    for name, help, function in (
        ("evaluate", "score both stages on images with masks and labels", evaluate),
        ("predict", "masks, class and probabilities for a folder of images", predict_folder),
    ):
        added = add_command(name, help, function)
        command.add_data_flags(added, "cervical")
        added.add_argument("--batch-size", type=positive_int, default=8, help="images in a batch")
        if name == "evaluate":
            command.add_part_flag(added, "test")

    added = add_command("demo", "draw a small data set and do all of it, offline", demo)
    command.add_demo_flags(added, "cervical")
    return parser


def main(arguments: list[str]) -> None:
    args = command.parse(make_parser(), arguments)
    args.execute(args)
