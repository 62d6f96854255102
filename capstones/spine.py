"""Is there a pathology in a spine X-ray? An ensemble of DenseNet-121, EfficientNetV2-S, ResNet-50.

The data is a folder with images/ and labels.csv with the columns image and label (0 and 1, or No
finding and Pathology) and perhaps split (train, val, test), or an .npz file in the MedMNIST layout.
Each network has one logit. The probabilities of an image and its mirror image are averaged, then
those of the networks. Their weights (by AUROC) and the threshold (by F1) come from validation
images alone; only `evaluate` reads the labels of test images.
"""

import argparse
import json
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning import seed_everything
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryF1Score,
    BinaryRecall,
    BinarySpecificity,
)

from capstones import command
from capstones.backbones import make_backbone
from capstones.checkpoints import best_path, load_best, load_weights
from capstones.spine_data import (
    PARTS,
    XRays,
    XRaySet,
    divide,
    draw_data,
    load_data,
    part_of,
    save_split,
)
from capstones.spine_scores import (
    bootstrap,
    draw_roc,
    find_threshold,
    find_weights,
    score_table,
    scores,
    weighted_average,
)
from capstones.tables import check_classes, write_table
from capstones.training import Batches, finite, fit, predict
from pathlab.arguments import below_one, not_negative_float, not_negative_int, number, positive_int
from pathlab.errors import UserError
from pathlab.files import make_folder, write_json
from pathlab.training import plots
from pathlab.training.evaluate import Predictions

# The three networks and their own settings. timm has pretrained weights of EfficientNetV2-S under
# the name of the original, TensorFlow's.
BACKBONES = {
    "densenet121": "densenet121",
    "efficientnetv2_s": "tf_efficientnetv2_s",
    "resnet50": "resnet50",
}
BATCH_SIZES = {"densenet121": 32, "efficientnetv2_s": 24, "resnet50": 32}
WEIGHT_DECAYS = {"densenet121": 1e-4, "efficientnetv2_s": 5e-5, "resnet50": 1e-4}
PROGRESSIVE = "efficientnetv2_s"
LEAST_SIZE = 32  # what the networks halve five times

SUBMISSION = "ensemble_submission.csv"

image_size = number(int, f"a whole number from {LEAST_SIZE}", lambda size: size >= LEAST_SIZE)


class BinaryClassifier(L.LightningModule):
    """Trains `model`: float32 [B, 3, S, S] -> one logit [B, 1], with binary cross-entropy.

    pos_weight: weight of the positive images in the loss. make_optimizer: from the parameters to
    what Lightning's configure_optimizers returns. tta: predict_step returns the mean probability
    [B] of each image and its mirror image, else that of the image. Logged in validation: val_loss,
    val_auroc, and at the threshold 0.5 val_sensitivity, val_specificity, val_f1_score.
    """

    def __init__(self, model: nn.Module, pos_weight: float = 1, make_optimizer=None, tta=False):
        super().__init__()
        self.model, self.make_optimizer, self.tta = model, make_optimizer, tta
        self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(float(pos_weight)))
        self.metrics = MetricCollection(
            {
                "val_auroc": BinaryAUROC(),
                "val_sensitivity": BinaryRecall(),
                "val_specificity": BinarySpecificity(),
                "val_f1_score": BinaryF1Score(),
            }
        )

    def configure_optimizers(self):
        return self.make_optimizer(self.model.parameters())

    def training_step(self, batch, index: int) -> torch.Tensor:
        images, labels = batch
        loss = finite(self.criterion(self.model(images)[:, 0], labels))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch, index: int) -> None:
        images, labels = batch
        logits = self.model(images)[:, 0]
        self.log("val_loss", self.criterion(logits, labels), prog_bar=True, sync_dist=True)
        self.metrics.update(logits.float().sigmoid(), labels.int())
        self.log_dict(self.metrics)

    def predict_step(self, images: torch.Tensor, index: int) -> torch.Tensor:
        probabilities = self.model(images)[:, 0].float().sigmoid()
        if self.tta:
            mirrored = self.model(images.flip(-1))[:, 0].float().sigmoid()
            probabilities = (probabilities + mirrored) / 2
        return probabilities


def class_weight(labels: list[int]) -> float:
    """n_negative / n_positive."""
    return labels.count(0) / labels.count(1)


def training_sizes(args: argparse.Namespace, member: str) -> list[int]:
    """The image sizes of a training, one after the other.

    EfficientNetV2 grows by thirds (128, 256, 384), as in Tan & Le, ICML 2021, section 4.
    """
    size = args.image_size
    if args.progressive is None:
        thirds = [max(LEAST_SIZE, round(size * share / 3)) for share in (1, 2)]
        return [*thirds, size] if member == PROGRESSIVE else [size]
    if args.progressive[-1] != size:
        raise UserError(
            f"--progressive ends at {args.progressive[-1]}, but validation images have --image-size"
            f" {size}: both must be the same."
        )
    return args.progressive


def size_at(epoch: int, epochs: int, sizes: list[int]) -> int:
    """The size in an epoch, from 0. Equal parts of the epochs, counted from the last, which has the
    last size even where there are more sizes than epochs."""
    return sizes[len(sizes) - 1 - (epochs - 1 - epoch) * len(sizes) // epochs]


def make_model(settings: dict, pretrained: bool) -> nn.Module:
    """A timm model with one logit."""
    return make_backbone(
        settings["backbone"], pretrained, num_classes=1, drop_rate=settings["dropout"]
    )


def of_member(value, member: str):
    """A flag's value for a network: its own default, or what was given for all."""
    return value[member] if isinstance(value, dict) else value


def member_settings(args: argparse.Namespace, classes: list[str]) -> dict[str, dict]:
    """For each network that is to be trained, what it takes to rebuild it.

    Raises UserError where --backbone has not one name for each.
    """
    members = list(BACKBONES) if args.model == "all" else [args.model]
    backbones = args.backbone
    if isinstance(backbones, list):
        if len(backbones) != len(members):
            raise UserError(
                f"--backbone has {len(backbones)} names for {len(members)} networks "
                f"({', '.join(members)}): name one for each, separated by commas."
            )
        backbones = dict(zip(members, backbones, strict=True))
    return {
        member: {
            "backbone": backbones[member],
            "image_size": args.image_size,
            "dropout": args.dropout,
            "classes": classes,
        }
        for member in members
    }


def check_run(args: argparse.Namespace, members: list[str]) -> None:
    """Raises UserError where a new training would mix with one that is in the run's folder.

    Networks are trained one by one, or all by one command: each has one owner, who can resume it.
    """
    if args.resume:
        return
    mixed = list(BACKBONES) if args.model == "all" else ["all"]
    found = [name for name in mixed if (args.run / f"train-{name}-{command.SETTINGS}").exists()]
    if found:
        raise UserError(
            f"{args.run} already holds a training with --model {found[0]}. Go on with it by "
            f"--model {found[0]} --resume, or name another --run."
        )
    if len(members) > 1 and args.devices * args.nodes > 1:
        raise UserError(
            "--model all trains on one device. With several, train one network after the other "
            "into the same --run, then run `ensemble`."
        )


def train(args: argparse.Namespace) -> None:
    data = load_data(args.data)
    settings = member_settings(args, data.classes)
    sizes = {member: training_sizes(args, member) for member in settings}
    parts = divide(data, args.validation, args.test, args.split_seed)
    places = {part: [i for i, p in enumerate(parts) if p == part] for part in PARTS}
    train_data, val_data = data.take(places["training"]), data.take(places["validation"])
    for part in (train_data, val_data):
        part.check_images()
    check_run(args, list(settings))
    models = {}
    for member in settings:  # all of them, before hours of training meet an unknown name
        seed_everything(args.seed, verbose=False)
        begun = args.resume and (args.run / "checkpoints" / f"{member}_last.ckpt").exists()
        models[member] = make_model(settings[member], not args.no_pretrained and not begun)
    command.start_run(args, "model")
    save_split(args.run, data.names, parts)
    for member in settings:
        print(f"{member}: {settings[member]['backbone']}, training at {sizes[member]} pixels")
        seed_everything(args.seed, verbose=False)
        train_member(args, member, models.pop(member), settings[member], train_data, val_data)
    if args.devices * args.nodes == 1:
        fit_ensemble(args, val_data)
    else:
        print("run `ensemble` when all networks are trained")


def train_member(
    args: argparse.Namespace,
    member: str,
    model: nn.Module,
    settings: dict,
    train_data: XRays,
    val_data: XRays,
) -> None:
    sizes, batch_size = training_sizes(args, member), of_member(args.batch_size, member)
    batches = Batches(
        lambda epoch: XRaySet(train_data, size_at(epoch, args.epochs, sizes), augment=True),
        XRaySet(val_data, args.image_size),
        batch_size,
        args.workers,
        args.seed,
    )

    def make_optimizer(parameters):
        adam = torch.optim.AdamW(
            parameters,
            lr=args.learning_rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=of_member(args.weight_decay, member),
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, args.epochs, eta_min=1e-6)
        return {"optimizer": adam, "lr_scheduler": cosine}

    pos_weight = 1 if args.no_class_weight else class_weight(train_data.labels)
    module = BinaryClassifier(model, pos_weight, make_optimizer)
    table = f"checkpoints/training_logs/{member}_log.csv"
    best = fit(module, batches, args, settings, name=member, monitor="val_auroc", table=table)
    print(f"the best weights are in {best}, each epoch's metrics in {args.run / table}")


def member_probabilities(
    args: argparse.Namespace, members: list[str], data: XRays, tta: bool, batch_size: int
) -> dict[str, np.ndarray]:
    """float64 [N] for each network, by the best weights of the run.

    Raises UserError for a missing or damaged checkpoint, a damaged image, and classes that are not
    those of the training.
    """
    data.check_images()
    probabilities = {}
    for member in members:
        checkpoint = load_best(args.run, member)
        settings = checkpoint["settings"]
        if data.classes and data.classes != settings["classes"]:
            raise UserError(
                f"{member} knows the classes {', '.join(settings['classes'])}, not "
                f"{', '.join(data.classes)}."
            )
        model = load_weights(make_model(settings, pretrained=False), checkpoint)
        dataset = XRaySet(data, settings["image_size"], labelled=False)
        batches = predict(BinaryClassifier(model, tta=tta), dataset, args, batch_size)
        probabilities[member] = torch.cat(batches).double().cpu().numpy()
    return probabilities


def fit_ensemble(
    args: argparse.Namespace, data: XRays, given: list[float] | None = None, tta: bool = True
) -> None:
    """Write ensemble.json: weights and thresholds from validation images, for all other commands.

    given: the weights, one for each network that is trained. Raises UserError for another number
    of them, and where no network is trained.
    """
    members = [member for member in BACKBONES if best_path(args.run, member).exists()]
    if not members:
        raise UserError(f"{args.run} holds no trained network: train first, or name its --run.")
    if given and len(given) != len(members):
        raise UserError(
            f"--weights has {len(given)} numbers for {len(members)} networks "
            f"({', '.join(members)}): give one for each, separated by commas."
        )
    batch_size = of_member(args.batch_size, members[0])
    probabilities = member_probabilities(args, members, data, tta, batch_size)
    if given:
        weights = {member: w / sum(given) for member, w in zip(members, given, strict=True)}
    else:
        weights = find_weights(probabilities, data.labels)
    systems = {**probabilities, "ensemble": weighted_average(probabilities, weights)}
    thresholds = {name: find_threshold(p, data.labels)[0] for name, p in systems.items()}
    labels = np.array(data.labels)
    measured = {name: scores(p, labels, thresholds[name]) for name, p in systems.items()}
    path = args.run / "ensemble.json"
    write_json(
        path, {"weights": weights, "thresholds": thresholds, "tta": tta, "validation": measured}
    )
    for member, weight in weights.items():
        print(f"{member}: weight {weight:.3f}, validation AUROC {measured[member]['auroc']:.4f}")
    print(
        f"ensemble: threshold {thresholds['ensemble']:.3f}, validation AUROC "
        f"{measured['ensemble']['auroc']:.4f}, F1 {measured['ensemble']['f1_score']:.4f}; "
        f"written to {path}"
    )


def ensemble(args: argparse.Namespace) -> None:
    data = part_of(load_data(args.data), args.run, "validation", args.data)
    fit_ensemble(args, data, args.weights, tta=not args.no_tta)


def read_ensemble(run: Path) -> dict:
    """What fit_ensemble wrote. Raises UserError where it is missing or damaged."""
    path = run / "ensemble.json"
    try:
        found = json.loads(path.read_text())
        if set(found["thresholds"]) != {*found["weights"], "ensemble"} or "tta" not in found:
            raise ValueError("a threshold or weight is missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). It is written at the end of `train`, and by "
            "`ensemble`: finish the training, or name the run's folder with --run."
        ) from error
    return found


def run_ensemble(
    args: argparse.Namespace, data: XRays
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """(probabilities [N], thresholds) of each network and of the ensemble, under that name."""
    found = read_ensemble(args.run)
    members = list(found["weights"])
    probabilities = member_probabilities(args, members, data, found["tta"], args.batch_size)
    average = weighted_average(probabilities, found["weights"])
    return {**probabilities, "ensemble": average}, found["thresholds"]


def predict_images(args: argparse.Namespace) -> None:
    data = part_of(load_data(args.data, labelled=False), args.run, args.part, args.data)
    systems, thresholds = run_ensemble(args, data)
    probabilities = systems["ensemble"]
    table = pd.DataFrame(
        {
            "image": data.names,
            "probability": probabilities.round(6),
            "prediction": (probabilities >= thresholds["ensemble"]).astype(int),
        }
    )
    path = args.run / SUBMISSION
    write_table(path, table)
    print(
        f"{table['prediction'].sum()} of {len(table)} images with a pathology (probability from "
        f"{thresholds['ensemble']:.3f}): {path}"
    )


def evaluate(args: argparse.Namespace) -> None:
    data = part_of(load_data(args.data), args.run, args.part, args.data)
    check_classes(data.labels, data.classes, args.part)
    systems, thresholds = run_ensemble(args, data)
    labels = np.array(data.labels)
    measured = {
        name: {
            "threshold": thresholds[name],
            **scores(p, labels, thresholds[name]),
            "intervals": bootstrap(p, labels, thresholds[name], args.bootstrap, args.seed),
        }
        for name, p in systems.items()
    }
    folder = args.run / "evaluation"
    make_folder(folder)
    report = {
        "part": args.part,
        "images": len(labels),
        "positive": int(labels.sum()),
        "intervals": f"95 % percentiles of {args.bootstrap} stratified bootstrap samples",
        "systems": measured,
    }
    write_json(folder / "evaluation.json", report)
    draw_roc(systems, thresholds, labels, folder / "roc.png")
    predicted = (systems["ensemble"] >= thresholds["ensemble"]).astype(int)
    plots.confusion_matrix(
        Predictions(np.eye(2)[predicted], labels, args.part), data.classes, folder / "confusion.png"
    )
    print(score_table(measured))
    print(f"{len(labels)} images ({args.part}); 95 % intervals in brackets; written to {folder}")


def demo(args: argparse.Namespace) -> None:
    draw_data(args.output / "data")
    data = ["--data", str(args.output / "data"), "--run", str(args.output / "run")]
    small = ["--no-pretrained", "--backbones", "test_byobnet,test_resnet,resnet10t"]
    small += ["--image-size", "64", "--batch-size", "16", "--epochs", "10"]
    small += ["--learning-rate", "2e-3"]
    command.run_demo(
        main,
        "spine",
        [
            ["train", *data, "--model", "all", *small],
            ["evaluate", *data],
            ["predict", *data, "--part", "test"],
        ],
    )


def comma_list(kind):
    """An argparse type: one or more values, separated by commas."""

    def parse(text: str) -> list:
        return [kind(value.strip()) for value in text.split(",")]

    return parse


def weight_list(text: str) -> list[float]:
    """An argparse type: numbers from 0, not all 0."""
    weights = comma_list(not_negative_float)(text)
    if sum(weights) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} has no positive weight")
    return weights


def add_train_command(add_command) -> None:
    added = add_command("train", "train one network, or all and their ensemble", train)
    command.add_data_flags(added, "spine")
    command.add_training_flags(
        added, epochs=50, batch_size=BATCH_SIZES, learning_rate=1e-4, weight_decay=WEIGHT_DECAYS
    )
    add = added.add_argument
    add("--model", choices=(*BACKBONES, "all"), default="all", help="the network to train")
    add(
        "--backbone",
        "--backbones",
        type=comma_list(str),
        default=BACKBONES,
        help="networks of timm in place of these: one name, or three with --model all",
    )
    add("--image-size", type=image_size, default=384, help="pixels")
    add(
        "--progressive",
        type=comma_list(image_size),
        help="sizes of the training images, such as 128,256,384, in equal parts of the epochs; if "
        "not given, efficientnetv2_s grows by thirds of --image-size, from 32 on",
    )
    add("--dropout", type=below_one, default=0.0, help="share of the features before the logit")
    add("--no-class-weight", action="store_true", help="do not weigh positives by negatives / them")
    add("--validation", type=command.share, default=0.1, help="share, where the data names none")
    add("--test", type=command.share, default=0.1, help="share, where the data names no split")
    add("--split-seed", type=not_negative_int, default=0, help="of that division")


def main(arguments: list[str]) -> None:
    parser, add_command = command.build_parser("spine", __doc__.splitlines()[0])
    add_train_command(add_command)

    batch_size = {"type": positive_int, "default": 32, "help": "images in a batch"}
    added = add_command("ensemble", "fit weights and threshold on validation images", ensemble)
    command.add_data_flags(added, "spine")
    add = added.add_argument
    add("--batch-size", **batch_size)
    add(
        "--weights",
        type=weight_list,
        help="of the networks, such as 2,1,1; if not given, the best on validation images",
    )
    add("--no-tta", action="store_true", help="without mirror images")

    added = add_command("predict", "write the probability of a pathology", predict_images)
    command.add_data_flags(added, "spine")
    added.add_argument("--batch-size", **batch_size)
    command.add_part_flag(added, "test")
    added.set_defaults(part="all")

    added = add_command(
        "evaluate", "score the networks and their ensemble on test images", evaluate
    )
    command.add_data_flags(added, "spine")
    add = added.add_argument
    add("--batch-size", **batch_size)
    command.add_part_flag(added, "test")
    added.set_defaults(part="test")
    add("--bootstrap", type=positive_int, default=1000, help="samples for the intervals")
    add("--seed", type=not_negative_int, default=0, help="of these samples")

    added = add_command("demo", "draw a small data set and do all of it, offline", demo)
    command.add_demo_flags(added, "spine")

    args = command.parse(parser, arguments, separate="model")
    args.execute(args)
