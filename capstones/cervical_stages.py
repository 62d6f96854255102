"""How the two networks of `cervical` are trained: stage one segments, stage two classifies."""

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pandas import DataFrame
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Dataset

from capstones.cervical_models import (
    HEADS,
    ConvNeXtAttentionClassifier,
    DualHeadAttConvNeXtUNet,
)
from capstones.cervical_scores import count_pixels, overlap_scores
from capstones.classifier import TrainedModule
from capstones.images import ImageSet
from capstones.masks import CellTransform, write_masks
from capstones.network import Network, load_module
from capstones.runs import is_helper_process
from capstones.training import predict
from pathlab.files import make_folder


def dice_and_bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of each head, float32 [2]: 1 - soft Dice, a mean over the images, plus BCE.

    logits and targets, from 0 to 1: [B, 2, H, W]. Soft Dice of an image is
    (2 sum(p t) + 1) / (sum(p) + sum(t) + 1), which is 1 where both are empty (Milletari et al.,
    "V-Net", 2016, with smoothing).
    """
    logits, targets = logits.float(), targets.float()
    p = logits.sigmoid()
    overlap, sizes = (p * targets).sum((2, 3)), (p + targets).sum((2, 3))
    dice = (2 * overlap + 1) / (sizes + 1)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return 1 - dice.mean(0) + bce.mean((0, 2, 3))


def cosine(optimizer: Optimizer, epochs: int) -> LambdaLR:
    """From the learning rate to nearly 0, half a cosine over the epochs.

    Unlike CosineAnnealingLR's, its length is not part of a checkpoint: a training that is resumed
    with more --epochs gets the longer curve.
    """
    return LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * min(i / epochs, 1))) / 2)


class Segmenter(TrainedModule):
    """Trains `model`, images [B, 3, H, W] -> logits [B, 2, H, W], with Dice + BCE for each head.

    Batches are (images, masks float32 [B, 2, H, W]). Logged in validation: val_loss, val_iou and
    val_dice as means over the images and both heads, and val_dice_HEAD. In prediction, batches are
    ((images, no masks), places int64 [B]), and `finish` gets each place with its probabilities,
    float32 [2, H, W] on the CPU: maps of a whole data set do not fit into memory.
    """

    finish: Callable[[int, torch.Tensor], None]

    def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """The mean of both heads' losses."""
        images, masks = batch
        return dice_and_bce(self.model(images), masks).mean()

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Logs the loss and the scores."""
        images, masks = batch
        logits = self.model(images)
        scores = overlap_scores(count_pixels(logits > 0, masks > 0.5))
        dice = scores["dice"].float().mean(0)
        metrics = {
            "val_loss": dice_and_bce(logits, masks).mean(),
            "val_dice": dice.mean(),
            "val_iou": scores["iou"].float().mean(),
            **{f"val_dice_{head}": dice[i] for i, head in enumerate(HEADS)},
        }
        self.log_dict(metrics, batch_size=len(images), sync_dist=True)

    def predict_step(self, batch: list, index: int) -> torch.Tensor:
        """Returns the places that are done."""
        (images, _), places = batch
        for place, maps in zip(places.tolist(), self.model(images).float().sigmoid(), strict=True):
            self.finish(place, maps.cpu())
        return places


class Stage(Network):
    """What both stages have in common."""

    mode = "max"
    joined = True  # masks are channels of the image

    def transform(self, settings: dict, augment: bool) -> CellTransform:
        """From a cell's image and masks."""
        size, cytoplasm = settings["image_size"], settings["cytoplasm"]
        return CellTransform(size, cytoplasm, self.joined, augment)

    def make_schedule(self, args: Namespace, optimizer: Optimizer) -> LRScheduler:
        """The rate falls to nearly 0 in --epochs."""
        return cosine(optimizer, args.epochs)


class Segmentation(Stage):
    """Stage one: DualHeadAttConvNeXtUNet."""

    name, monitor = "segmentation", "val_dice"
    table = "logs/segmentation/metrics.csv"
    flags = ("backbone", "image_size", "cytoplasm")
    joined = False  # masks are the target

    def build_model(self, settings: dict, pretrained: bool) -> nn.Module:
        """float32 [B, 3, S, S] -> logits [B, 2, S, S]."""
        return DualHeadAttConvNeXtUNet(settings["backbone"], pretrained)

    def module(self, model: nn.Module, settings: dict) -> Segmenter:
        """Dice and BCE."""
        return Segmenter(model)

    def dataset(self, samples: DataFrame, settings: dict, augment: bool = False) -> Dataset:
        """Items: (image, masks)."""
        return ImageSet(samples["images"], None, self.transform(settings, augment))

    def export_masks(self, args: Namespace, samples: DataFrame, folder: Path) -> None:
        """Write the masks that the run's stage one predicts for these samples.

        Raises UserError for a missing checkpoint or a file that cannot be written.
        """
        if is_helper_process():
            return
        module: Any
        module, settings = load_module(self, args)
        make_folder(folder)
        images = [files[0] for files in samples["images"]]
        module.finish = lambda i, maps: write_masks(images[i], maps, folder, samples.index[i])
        transform = self.transform(settings, augment=False)
        dataset = ImageSet([(image,) for image in images], range(len(images)), transform)
        predict(module, dataset, args, args.batch_size)


class Classification(Stage):
    """Stage two: ConvNeXtAttentionClassifier, on the image and two masks or on the image alone."""

    name, monitor = "classification", "val_f1"
    table = "logs/classification/metrics.csv"
    flags = ("backbone", "image_size", "masks", "cytoplasm")

    def settings(self, args: Namespace, samples: DataFrame) -> dict:
        """Also the classes that were left out: those without a sample."""
        n = samples["label"].value_counts(sort=False)
        classes, left_out = list(n.index[n > 0]), list(n.index[n == 0])
        return {**super().settings(args, samples), "classes": classes, "left_out": left_out}

    def dataset(self, samples: DataFrame, settings: dict, augment: bool = False) -> Dataset:
        """Items: (image with masks, code of the label)."""
        labels = samples["label"].cat.set_categories(settings["classes"])
        return super().dataset(samples.assign(label=labels), settings, augment)

    def build_model(self, settings: dict, pretrained: bool) -> nn.Module:
        """float32 [B, 3 or 5, S, S] -> logits [B, n_classes]."""
        channels = 3 if settings["masks"] == "none" else 3 + len(HEADS)
        n_classes = len(settings["classes"])
        return ConvNeXtAttentionClassifier(settings["backbone"], channels, n_classes, pretrained)


SEGMENTATION, CLASSIFICATION = Segmentation(), Classification()
