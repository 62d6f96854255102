"""Is there a pathology in a spine X-ray? An ensemble of DenseNet-121, EfficientNetV2-S, ResNet-50.

The data is a folder with images/ and labels.csv with the columns image and label (0 and 1, or No
finding and Pathology) and perhaps split (train, val, test), or an .npz file in the MedMNIST layout.
Each network has one logit. The probabilities of an image and its mirror image are averaged, then
those of the networks. Their weights (by AUROC) and the threshold (by F1) come from validation
images alone; only `evaluate` reads the labels of test images.
"""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pandas import DataFrame

from capstones import drawings, flags
from capstones.driver import System
from capstones.folder import Layout, categorical, write_table
from capstones.network import Network, Training
from capstones.runs import settings_path
from capstones.spine_ensemble import fit_ensemble, read_ensemble, run_ensemble, trained_members
from capstones.spine_networks import BACKBONES, DOCUMENTED, Member
from capstones.spine_scores import (
    bootstrap,
    draw_roc,
    score_table,
    scores,
)
from capstones.splits import check_classes, divide, take_part
from pathlab.arguments import below_one, not_negative_float, not_negative_int, positive_int
from pathlab.data import sets as medmnist
from pathlab.errors import UserError
from pathlab.files import make_folder, write_json
from pathlab.training import plots
from pathlab.training.evaluate import Predictions

SUBMISSION = "ensemble_submission.csv"


def read_archive(path: Path, layout: Layout, classes: Sequence[str] = ()) -> DataFrame:
    """The samples of an .npz file in the MedMNIST layout, called train_00000, test_00000, ...

    Raises UserError for a damaged file, and where there are not two classes.
    """
    data = medmnist.load(str(path))
    if data.num_classes != 2:
        raise UserError(f"{path} has labels of {data.num_classes} classes: expected 0 and 1.")
    rows = []
    for part in medmnist.SPLITS:
        name = {"train": "training", "val": "validation"}.get(part, part)
        for i, (image, label) in enumerate(zip(data.images[part], data.labels[part], strict=True)):
            pixels = torch.from_numpy(np.array(image))  # a copy: the archive is read-only
            pixels = pixels[None] if data.is_gray else pixels.permute(2, 0, 1)
            rows.append((f"{part}_{i:05}", pixels, data.class_names[label], name))
    samples = DataFrame(rows, columns=["image", "images", "label", "part"]).set_index("image")
    names = samples["label"].str.removeprefix("class ")
    samples["label"] = categorical(names, layout, path, classes)
    return samples


class Spine(System):
    """A pathology in a spine X-ray? An ensemble of three networks."""

    name = "spine"
    purposes: ClassVar = {
        "train": "train one network, or all and their ensemble",
        "ensemble": "fit weights and threshold on validation images",
        "predict": "write the probability of a pathology",
        "evaluate": "score the networks and their ensemble on test images",
    }
    parts: ClassVar = dict.fromkeys(("predict", "evaluate"), ("validation", "test", "all"))
    defaults: ClassVar = {
        "train": DOCUMENTED,
        "ensemble": {"batch_size": 32},
        "predict": {"batch_size": 32, "part": "all"},
        "evaluate": {"batch_size": 32, "part": "test"},
    }
    layout = Layout(
        "labels.csv",
        {
            "image": ("image", "name", "id", "image_id", "filename"),
            "label": ("label", "diagnosis", "class"),
            "split": ("split",),
        },
        negative=("0", "no finding", "no_finding", "normal", "negative", "healthy"),
    )
    draw = staticmethod(drawings.draw_spines)
    demo_commands = (
        "train --data {data} --model all --no-pretrained "
        "--backbones test_byobnet,test_resnet,resnet10t --image-size 64 --batch-size 16 "
        "--epochs 10 --learning-rate 2e-3",
        "evaluate --data {data}",
        "predict --data {data} --part test",
    )

    def add_flags(self, command: str, parser: ArgumentParser, data_required: bool = True) -> None:
        """The shared ones, and those of the ensemble."""
        super().add_flags(command, parser, data_required)
        add = parser.add_argument
        if command == "train":
            add_train_flags(parser)
        elif command == "ensemble":
            given = "weights of the networks, such as 2,1,1; if not given, the best on validation"
            add("--weights", type=weight_list, help=f"{given} images")
            add("--no-tta", action="store_true", help="predict without mirror images")
        elif command == "evaluate":
            add("--bootstrap", type=positive_int, default=1000, help="samples for the intervals")
            add("--seed", type=not_negative_int, default=0, help="random seed of these samples")

    def training_name(self, args: Namespace) -> str:
        """A run's folder takes a training for each --model."""
        return f"train-{args.model}"

    def read(self, args: Namespace, labelled: bool = True) -> DataFrame:
        """The samples of a folder, or an archive. Raises UserError as read_samples."""
        if not medmnist.is_archive(str(args.data)):
            return super().read(args, labelled)
        samples = read_archive(args.data, self.layout, getattr(args, "classes", ()))
        return take_part(samples, getattr(args, "part", "all"), args.run, "image")

    def divide(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """The parts that the data names, else drawn."""
        return divide(samples, args.split_seed, args.validation, args.test)

    def networks(self, args: Namespace) -> list[Network]:
        """Those that --model names."""
        return [Member(name) for name in (BACKBONES if args.model == "all" else [args.model])]

    def prepare(self, args: Namespace) -> tuple[DataFrame, list[Training]]:
        """Refuses what would mix two trainings: each network has one owner, who can resume it."""
        members = [network.name for network in self.networks(args)]
        backbones = args.backbone
        if isinstance(backbones, list):
            if len(backbones) != len(members):
                raise UserError(
                    f"--backbone has {len(backbones)} names for {len(members)} networks "
                    f"({', '.join(members)}): name one for each, separated by commas."
                )
            backbones = dict(zip(members, backbones, strict=True))
        others = list(BACKBONES) if args.model == "all" else ["all"]
        found = [name for name in others if settings_path(args.run, f"train-{name}").exists()]
        if found and not args.resume:
            raise UserError(
                f"{args.run} already holds a training with --model {found[0]}. Go on with it by "
                f"--model {found[0]} --resume, or name another --run."
            )
        if len(members) > 1 and args.devices * args.nodes > 1:
            raise UserError(
                "--model all trains on one device. With several, train one network after the "
                "other into the same --run, then run `ensemble`."
            )
        return super().prepare(Namespace(**{**vars(args), "backbone": backbones}))

    def finish(self, args: Namespace, samples: DataFrame) -> None:
        """The ensemble of all networks that the run has by now."""
        if args.devices * args.nodes == 1:
            fit_ensemble(args, trained_members(args.run), samples[samples["part"] == "validation"])
        else:
            print("run `ensemble` when all networks are trained")

    def ensemble(self, args: Namespace) -> None:
        """Weights and thresholds anew."""
        members = trained_members(args.run, mirrored=not args.no_tta)
        args = self.as_trained(args, members[0])
        args.part = "validation"
        fit_ensemble(args, members, self.load(args, self.read(args)), args.weights)

    def predict(self, args: Namespace) -> None:
        """Write the ensemble's probabilities and predictions."""
        members, fitted = read_ensemble(args.run)
        samples = self.load(args, self.read(args, labelled=False))
        found = run_ensemble(args, members, fitted["weights"], samples)
        threshold = fitted["thresholds"]["ensemble"]
        table = DataFrame({"image": samples.index, "probability": found["ensemble"].round(6)})
        table["prediction"] = (found["ensemble"] >= threshold).astype(int)
        write_table(args.run / SUBMISSION, table)
        print(
            f"{table['prediction'].sum()} of {len(table)} images with a pathology (probability "
            f"from {threshold:.3f}): {args.run / SUBMISSION}"
        )

    def evaluate(self, args: Namespace) -> None:
        """Score each network and the ensemble, with bootstrap intervals."""
        members, fitted = read_ensemble(args.run)
        args = self.as_trained(args, members[0])
        samples, thresholds = self.read(args), fitted["thresholds"]
        check_classes(samples["label"], args.part)
        found = run_ensemble(args, members, fitted["weights"], self.load(args, samples))
        folder, labels = args.run / "evaluation", samples["label"].cat.codes.to_numpy()
        measured = {
            name: {
                "threshold": thresholds[name],
                **scores(p, labels, thresholds[name]),
                "intervals": bootstrap(p, labels, thresholds[name], args.bootstrap, args.seed),
            }
            for name, p in found.items()
        }
        make_folder(folder)
        report = {
            "part": args.part,
            "images": len(labels),
            "positive": int(labels.sum()),
            "intervals": f"95 % percentiles of {args.bootstrap} stratified bootstrap samples",
            "systems": measured,
        }
        write_json(folder / "evaluation.json", report)
        draw_roc(found, thresholds, labels, folder / "roc.png")
        predicted = (found["ensemble"] >= thresholds["ensemble"]).astype(int)
        test = Predictions(np.eye(2)[predicted], labels.astype(np.int64), args.part)
        plots.confusion_matrix(
            test, list(samples["label"].cat.categories), folder / "confusion.png"
        )
        print(score_table(measured))
        print(f"{len(labels)} images ({args.part}); 95 % intervals in brackets; see {folder}")


def weight_list(text: str) -> list[float]:
    """An argparse type: numbers from 0, not all 0."""
    weights = flags.comma_list(not_negative_float)(text)
    if sum(weights) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} has no positive weight")
    return weights


def add_train_flags(parser: ArgumentParser) -> None:
    """The flags of `train` that are the system's own."""
    add = parser.add_argument
    add("--model", choices=(*BACKBONES, "all"), default="all", help="the network to train")
    add(
        "--backbone",
        "--backbones",
        type=flags.comma_list(flags.backbone),
        default=BACKBONES,
        help="networks of timm in place of these: one name, or three with --model all",
    )
    add("--image-size", type=flags.image_size, default=384, help="pixels")
    add(
        "--progressive",
        type=flags.comma_list(flags.image_size),
        help="sizes of the training images, such as 128,256,384, in equal parts of the epochs; if "
        "not given, efficientnetv2_s grows by thirds of --image-size, from 32 on",
    )
    add("--dropout", type=below_one, default=0.0, help="share of the features before the logit")
    add("--no-class-weight", action="store_true", help="disable class weighting")
    add("--validation", type=flags.share, default=0.1, help="share, where the data names none")
    add("--test", type=flags.share, default=0.1, help="share, where the data names no split")
    add("--split-seed", type=not_negative_int, default=0, help="random seed of that division")


main = Spine().main
