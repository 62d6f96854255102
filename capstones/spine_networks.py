"""The three networks of `spine`: their own settings, what they see, how they are trained."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from pandas import DataFrame
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import Dataset
from torchvision.transforms import v2

from capstones.backbones import make_backbone
from capstones.classifier import Classifier
from capstones.flags import LEAST_SIZE
from capstones.images import read_image, to_float
from capstones.network import Network
from pathlab.errors import UserError

# timm has pretrained weights of EfficientNetV2-S under the name of the original, TensorFlow's.
BACKBONES = {
    "densenet121": "densenet121",
    "efficientnetv2_s": "tf_efficientnetv2_s",
    "resnet50": "resnet50",
}
# The documented numbers; where the networks differ, for each.
DOCUMENTED = {
    "epochs": 50,
    "batch_size": {"densenet121": 32, "efficientnetv2_s": 24, "resnet50": 32},
    "learning_rate": 1e-4,
    "weight_decay": {"densenet121": 1e-4, "efficientnetv2_s": 5e-5, "resnet50": 1e-4},
}
PROGRESSIVE = "efficientnetv2_s"


def read_x_ray(image: tuple[Path] | torch.Tensor) -> torch.Tensor:
    """uint8 [3, H, W], of a file or of the pixels [1 or 3, H, W] of an archive."""
    return image.expand(3, -1, -1) if isinstance(image, torch.Tensor) else read_image(*image)


def augmentation() -> list[nn.Module]:
    """The document's: flip, rotation, brightness and contrast."""
    return [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomRotation(10),
        v2.ColorJitter(brightness=0.2, contrast=0.2),
    ]


def training_sizes(args: Namespace, member: str) -> list[int]:
    """The image sizes of a training, one after the other.

    EfficientNetV2 grows by thirds (128, 256, 384), as in Tan & Le, ICML 2021, section 4. Raises
    UserError where --progressive does not end at --image-size.
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


class Member(Network):
    """A network of the ensemble, by its name in BACKBONES.

    mirrored: whether it predicts the mean of an image and its mirror image.
    """

    monitor, mode = "val_auroc", "max"
    flags = ("image_size", "dropout")

    def __init__(self, name: str, mirrored: bool = True) -> None:
        self.name, self.mirrored = name, mirrored
        self.table = f"checkpoints/training_logs/{name}_log.csv"

    def own_args(self, args: Namespace) -> Namespace:
        """The flags with this network's value of those that have one for each."""
        own = {k: v[self.name] for k, v in vars(args).items() if isinstance(v, dict)}
        return Namespace(**{**vars(args), **own})

    def settings(self, args: Namespace, samples: DataFrame) -> dict:
        """Also the weight of the positive images in the loss, n_negative / n_positive."""
        training_sizes(args, self.name)
        n = samples.loc[samples["part"] == "training", "label"].value_counts(sort=False)
        pos_weight = 1.0 if args.no_class_weight else float(n.iloc[0] / n.iloc[1])
        common = super().settings(args, samples)
        return {**common, "backbone": args.backbone, "pos_weight": pos_weight}

    def build_model(self, settings: dict, pretrained: bool) -> nn.Module:
        """float32 [B, 3, S, S] -> one logit [B, 1]."""
        dropout = settings["dropout"]
        return make_backbone(settings["backbone"], pretrained, num_classes=1, drop_rate=dropout)

    def module(self, model: nn.Module, settings: dict) -> Classifier:
        """Binary cross-entropy with class weight."""
        return Classifier(model, 1, None, settings.get("pos_weight", 1.0), self.mirrored)

    def transform(self, settings: dict, augment: bool) -> Callable:
        """From an image to float32 [3, S, S]."""
        resize = v2.Resize((settings["image_size"],) * 2, antialias=True)
        return v2.Compose([read_x_ray, resize, *(augmentation() if augment else []), to_float()])

    def training_set(
        self, samples: DataFrame, settings: dict, args: Namespace
    ) -> Callable[[int], Dataset]:
        """From the epoch to the images in the size of that epoch."""
        sizes = training_sizes(args, self.name)
        print(f"{self.name}: {settings['backbone']}, training at {sizes} pixels")

        def in_epoch(epoch: int) -> Dataset:
            size = size_at(epoch, args.epochs, sizes)
            return self.dataset(samples, {**settings, "image_size": size}, augment=True)

        return in_epoch

    def make_schedule(self, args: Namespace, optimizer: Optimizer) -> LRScheduler:
        """A cosine to 1e-6."""
        return CosineAnnealingLR(optimizer, args.epochs, eta_min=1e-6)
