"""Cervical cells: a U-Net with two heads segments cytoplasm and nucleus, a classifier uses both.

The data folder holds images/, masks/ with a file of the same name for each image (255 nucleus, 128
cytoplasm, 0 background), and labels.csv with the columns image and label. Stage one, `segment`,
trains DualHeadAttConvNeXtUNet and writes two masks for every image, NAME_cytoplasm.png and
NAME_nucleus.png (0 and 255, in the image's own size), into RUN/outputs/masks. Stage two,
`classify`, trains ConvNeXtAttentionClassifier on the image and these masks.
"""

import dataclasses
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pandas import DataFrame, Series

from capstones import drawings, flags
from capstones.cervical_scores import score_masks
from capstones.cervical_stages import CLASSIFICATION, SEGMENTATION
from capstones.checkpoints import best_path, load_best
from capstones.driver import System
from capstones.folder import Channel, Layout, write_table
from capstones.images import check_images, read_all
from capstones.masks import check_mask, mask_paths
from capstones.network import Network, probabilities
from capstones.runs import settings_path, start_run
from capstones.splits import check_several, divide_by_folds
from pathlab.arguments import int_from_two, not_negative_int, positive_int
from pathlab.errors import UserError
from pathlab.files import make_folder, write_json

STAGES = {"segment": SEGMENTATION, "classify": CLASSIFICATION}
DOCUMENTED = {"learning_rate": 1e-4, "weight_decay": 0.01}  # of both stages


class Cervical(System):
    """Cervical cells: segment cytoplasm and nucleus, then classify."""

    name = "cervical"
    purposes: ClassVar = {
        "segment": "stage one: train the U-Net and write all masks",
        "classify": "stage two: train the classifier on images and masks",
        "train": "segment, then classify",
        "evaluate": "score both stages on images with masks and labels",
        "predict": "masks, class and probabilities for a folder of images",
    }
    trainings = ("segment", "classify")
    parts: ClassVar = {"evaluate": ("validation", "test", "all")}
    defaults: ClassVar = {
        "segment": {**DOCUMENTED, "epochs": 100, "batch_size": 8, "image_size": 1024},
        "classify": {**DOCUMENTED, "epochs": 50, "batch_size": 16, "image_size": 256},
        "evaluate": {"batch_size": 8},
        "predict": {"batch_size": 8},
    }
    layout = Layout(
        "labels.csv",
        {
            "image": ("image", "name", "filename", "id"),
            "label": ("label", "class", "stage", "diagnosis"),
        },
    )
    split_columns = ("image", "label", "part")
    draw = staticmethod(drawings.draw_cervical)
    _small = "--no-pretrained --backbone test_convnext --image-size 64 --lr 2e-3 --folds 4"
    demo_commands = (
        f"segment --data {{data}} {_small} --epochs 4",
        f"classify --data {{data}} {_small} --epochs 15",
        "evaluate --data {data}",
        "predict --data {data}/images",
    )

    def add_flags(self, command: str, parser: ArgumentParser, data_required: bool = True) -> None:
        """How images are split, what cytoplasm means, and the backbone: for every training."""
        if command == "train":
            flags.add_data_flags(parser, data_required)
            flags.add_start_flags(parser)
        else:
            super().add_flags(command, parser, data_required)
        add = parser.add_argument
        if command in self.trainings:
            add("--image-size", type=flags.image_size, help="pixels")
        if command in ("train", *self.trainings):
            add_split_flags(parser)
        if command in ("train", "classify"):
            leaves = "leave the classes with fewer images out of the classification"
            add("--smallest-class", type=positive_int, default=1, help=leaves)
        if command == "classify":
            beside = "channels beside the image: stage one's masks, the data's own, or none"
            choices = ("predicted", "true", "none")
            add("--masks", choices=choices, default="predicted", help=beside)
        if command == "train":
            more = 'more flags of segment, such as "--epochs 20 --lr 1e-3"'
            add("--segment-with", default="", help=more)
            add("--classify-with", default="", help="more flags of classify, likewise")

    def networks(self, args: Namespace) -> list[Network]:
        """The network of the stage."""
        return [STAGES[args.command]]

    def layout_for(self, args: Namespace) -> Layout:
        """Images, and masks where a command needs or finds them."""
        with_masks = args.command in ("segment", "train") or getattr(args, "masks", "") == "true"
        if with_masks or (args.command == "evaluate" and (args.data / "masks").is_dir()):
            channels = (*self.layout.channels, Channel("masks"))
            return dataclasses.replace(self.layout, channels=channels)
        return self.layout

    def divide(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """Both stages, and evaluation, share the folds through RUN/split.csv."""
        return divide_by_folds(samples, args.seed, args.folds, args.fold, args.test)

    def load(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """The samples, checked; of `classify` those of large classes, with the masks' files."""
        check_images([files[:1] for files in samples["images"]])
        read_all([files for files in samples["images"] if len(files) == 2], check_mask)
        if args.command != "classify":
            return samples
        samples = samples[samples["label"].isin(large_classes(samples, args))]
        return with_masks(samples, args.masks, args.run / "outputs" / "masks")

    def finish(self, args: Namespace, samples: DataFrame) -> None:
        """Stage one ends with the masks of the whole set."""
        if args.command == "segment":
            folder = args.run / "outputs" / "masks"
            SEGMENTATION.export_masks(args, samples, folder)
            print(f"masks of all {len(samples)} images in {folder}")

    def segment(self, args: Namespace) -> None:
        """Stage one."""
        super().train(args)

    def classify(self, args: Namespace) -> None:
        """Stage two. Raises UserError where it needs masks, but stage one is not trained."""
        if args.masks == "predicted":
            load_best(args.run, SEGMENTATION.name)
        super().train(args)

    def start(self, args: Namespace, samples: DataFrame) -> None:
        """Stage two begins with the masks of the best weights of now, whatever was written."""
        super().start(args, samples)
        if args.command == "classify" and args.masks == "predicted":
            SEGMENTATION.export_masks(args, samples, args.run / "outputs" / "masks")

    def train(self, args: Namespace) -> None:
        """Both stages. What a resumed run has finished is not done again."""
        begun = {stage: args.resume and settings_path(args.run, stage).exists() for stage in STAGES}
        stages = ["classify"] if begun["classify"] else list(STAGES)  # stage one is complete
        own = {stage: self.stage_args(args, stage, begun[stage]) for stage in STAGES}
        prepared = {stage: self.prepare(own[stage]) for stage in stages}  # before hours of one
        start_run(args, "train")
        for stage in stages:
            self.run(own[stage], *prepared.pop(stage))

    def stage_args(self, args: Namespace, stage: str, resume: bool) -> Namespace:
        """The flags of a stage: its own defaults, those of `train`, and --STAGE-with."""
        parser = ArgumentParser(f"python -m capstones cervical {stage}", allow_abbrev=False)
        self.add_flags(stage, parser, data_required=False)
        known = vars(parser.parse_args([]))
        shared = {flag: value for flag, value in vars(args).items() if flag in known}
        typed = shlex.split(getattr(args, f"{stage}_with"))
        own = parser.parse_args(typed, Namespace(**shared))
        return Namespace(**{**vars(own), "command": stage, "resume": resume})

    def evaluate(self, args: Namespace) -> None:
        """Score the stages that the run has."""
        stages = trained_stages(args.run)
        if CLASSIFICATION in stages:
            settings = load_best(args.run, CLASSIFICATION.name)["settings"]
            args.classes = [*settings["classes"], *settings["left_out"]]
        samples, folder = self.read(args), args.run / "evaluation"
        samples = self.load(args, samples)
        make_folder(folder)
        scores: dict = {"part": args.part}
        if SEGMENTATION in stages:
            SEGMENTATION.export_masks(args, samples, folder / "masks")
            if (args.data / "masks").is_dir():
                kind = load_best(args.run, SEGMENTATION.name)["settings"]["cytoplasm"]
                cells = [
                    (name, *files, mask_paths(folder / "masks", name))
                    for name, files in samples["images"].items()
                ]
                scores["segmentation"] = score_masks(cells, folder / "segmentation.png", kind)
            else:
                print(f"there is no {args.data / 'masks'}: the segmentation was not scored.")
        if CLASSIFICATION in stages:
            samples = samples[samples["label"].isin(settings["classes"])]
            labels = samples["label"].cat.set_categories(settings["classes"])
            samples = with_masks(samples.assign(label=labels), settings["masks"], folder / "masks")
            scores["classification"] = self.report(CLASSIFICATION, args, samples, folder)
        write_json(folder / "evaluation.json", scores)

    def predict(self, args: Namespace) -> None:
        """Masks, and each class's probability, of a folder of images."""
        stages, folder = trained_stages(args.run), args.run / "predictions"
        samples = self.load(args, self.read(args, labelled=False))
        if CLASSIFICATION in stages:
            settings = load_best(args.run, CLASSIFICATION.name)["settings"]
            if settings["masks"] == "true":
                raise UserError(
                    f"the classifier in {args.run} was trained with true masks, which new images "
                    "do not have: train one with --masks predicted or none."
                )
        make_folder(folder)
        if SEGMENTATION in stages:
            SEGMENTATION.export_masks(args, samples, folder / "masks")
            print(f"masks of {len(samples)} images: {folder / 'masks'}")
        if CLASSIFICATION in stages:
            samples = with_masks(samples, settings["masks"], folder / "masks")
            found = probabilities(CLASSIFICATION, args, samples)
            predicted = np.array(settings["classes"])[found.argmax(1)]
            table = DataFrame({"image": samples.index, "predicted": predicted})
            for i, name in enumerate(settings["classes"]):
                table[f"probability_{name}"] = found[:, i].round(6)
            write_table(folder / "predictions.csv", table)
            print(f"classes of {len(samples)} images: {folder / 'predictions.csv'}")


def with_masks(samples: DataFrame, masks: str, folder: Path) -> DataFrame:
    """The samples with the files that the classifier sees: beside the image its masks.

    masks: "none"; "true", which then stand there already; "predicted", those in `folder`.
    """
    if masks == "true":
        return samples
    found = [
        (files[0], *(mask_paths(folder, name) if masks == "predicted" else ()))
        for name, files in samples["images"].items()
    ]
    return samples.assign(images=Series(found, samples.index))


def large_classes(samples: DataFrame, args: Namespace) -> list[str]:
    """The classes of at least --smallest-class images.

    Raises UserError where a class has fewer images than there are folds, or fewer than two remain.
    """
    labels = samples["label"]
    n = labels.value_counts(sort=False)
    classes, left_out = list(n.index[n >= args.smallest_class]), n.index[n < args.smallest_class]
    check_several(labels.cat.set_categories(classes))
    if small := [name for name in classes if n[name] < args.folds]:
        raise UserError(
            f"the class {small[0]} has {n[small[0]]} image(s): each of the {args.folds} folds "
            f"needs one. Add images of it, or leave it out by --smallest-class {args.folds}."
        )
    if len(left_out):
        print(f"left out, with fewer than {args.smallest_class} images: {', '.join(left_out)}")
    return classes


def trained_stages(run: Path) -> list[Network]:
    """The stages whose checkpoints the run has.

    Raises UserError where it has none, or a classifier of predicted masks without stage one.
    """
    stages: list[Network] = [s for s in STAGES.values() if best_path(run, s.name).exists()]
    if stages != [CLASSIFICATION] or (
        load_best(run, CLASSIFICATION.name)["settings"]["masks"] == "predicted"
    ):
        load_best(run, SEGMENTATION.name)
    return stages


def add_split_flags(parser: ArgumentParser) -> None:
    """How images are split, what cytoplasm means, and the backbone: for every training."""
    add = parser.add_argument
    add("--folds", type=int_from_two, default=5, help="equal parts of the images")
    add("--fold", type=not_negative_int, default=0, help="the part that is for validation")
    add("--test", action="store_true", help="keep the next part away from training, too, as a test")
    add("--backbone", type=flags.backbone, default="convnext_tiny", help="a convnext of timm")
    holds = "what its masks hold: the cytoplasm around the nucleus, or the whole cell"
    add("--cytoplasm", choices=("ring", "cell"), default="ring", help=holds)


main = Cervical().main
