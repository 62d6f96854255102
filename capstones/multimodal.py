"""Is a cell cancerous? A classifier of bright-field and fluorescence image pairs.

The data folder holds BF/ and FL/, where a pair has the same name, and train.csv with the columns
name and diagnosis (0 and 1, or healthy and cancerous). Both images become one tensor of six
channels. ConvNeXt-Large with ImageNet's weights is fine-tuned: head and last stage only.
"""

import dataclasses
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pandas import DataFrame
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler
from torchvision import tv_tensors
from torchvision.transforms import v2

from capstones import drawings, flags
from capstones.backbones import make_backbone
from capstones.driver import System
from capstones.folder import Channel, Layout
from capstones.images import read_image, to_float
from capstones.network import Network
from capstones.splits import draw
from pathlab.arguments import positive_int

FOLDERS = {"both": ("BF", "FL"), "bf": ("BF",), "fl": ("FL",)}
DOCUMENTED = {"epochs": 30, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 0.0}
DOCUMENTED |= {"patience": 8, "clip": 1.0}
QUICK_IMAGES = 100


class PairTransform:
    """From a pair's files to float32 [6, S, S], BF's channels first; or one modality's [3, S, S].

    Augmented, both images are turned, flipped, sheared and cropped alike; their colours change
    apart.
    """

    def __init__(self, size: int, augment: bool) -> None:
        self.geometry = geometry(size) if augment else v2.Resize((size, size), antialias=True)
        self.colour = v2.ColorJitter(0.2, 0.2, 0.2, 0.05) if augment else nn.Identity()
        self.to_float = to_float()

    def __call__(self, files: tuple[Path, ...]) -> torch.Tensor:
        images = [tv_tensors.Image(read_image(path)) for path in files]
        images = self.geometry(images)  # one draw for the whole pair
        pair = torch.cat([self.to_float(self.colour(image)) for image in images])
        return pair.as_subclass(torch.Tensor)


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


def freeze_all_but_the_end(model: nn.Module) -> None:
    """Freeze what stands before the last stage. That stage, its norms and the head are trained."""
    stages: Any = model.feature_info
    last_stage = stages[-1]["module"]
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(f"{last_stage}.")
        parameter.requires_grad = reached


class PairNetwork(Network):
    """Adam with warm restarts, on batches in which both classes are drawn equally often."""

    name = "convnext"
    flags = ("backbone", "modalities", "image_size")
    balanced = True
    optimizer = torch.optim.Adam

    def build_model(self, settings: dict, pretrained: bool) -> nn.Module:
        """float32 [B, 3 or 6, S, S] -> logits [B, 2]."""
        channels = 3 * len(FOLDERS[settings["modalities"]])
        return make_backbone(settings["backbone"], pretrained, in_chans=channels, num_classes=2)

    def freeze(self, model: nn.Module) -> None:
        """All but the last stage and the head."""
        freeze_all_but_the_end(model)

    def transform(self, settings: dict, augment: bool) -> PairTransform:
        """From a pair's files to a tensor."""
        return PairTransform(settings["image_size"], augment)

    def make_schedule(self, args: Namespace, optimizer: Optimizer) -> LRScheduler:
        """A cosine that restarts every --restart epochs."""
        return CosineAnnealingWarmRestarts(optimizer, args.restart)


class Multimodal(System):
    """Is a cell cancerous? From a bright-field and a fluorescence image."""

    name = "multimodal"
    purposes: ClassVar = {
        "train": "fine-tune a network on labelled pairs",
        "predict": "write the probability of cancer of every pair",
        "evaluate": "score the model on labelled pairs",
    }
    defaults: ClassVar = {"train": DOCUMENTED}
    network = PairNetwork()
    layout = Layout(
        "train.csv",
        {
            "name": ("name", "id", "image", "filename"),
            "diagnosis": ("diagnosis", "label", "class"),
        },
        positive=("1", "cancerous", "cancer", "malignant"),
    )
    split_columns = ("name", "part")
    submission = "submission_probs_convnext.csv"
    draw = staticmethod(drawings.draw_multimodal)
    demo_commands = (
        "train --data {data} --no-pretrained --backbone resnet10t --image-size 64 --batch-size 8 "
        "--epochs 10 --learning-rate 1e-3 --validation 0.25",
        "evaluate --data {data}",
        "predict --data {data}/test",
    )

    def add_flags(self, command: str, parser: ArgumentParser, data_required: bool = True) -> None:
        """Those of `train` are more than the shared ones."""
        super().add_flags(command, parser, data_required)
        if command != "train":
            return
        add = parser.add_argument
        add("--backbone", type=flags.backbone, default="convnext_large", help="any network of timm")
        add("--image-size", type=positive_int, default=384, help="pixels")
        add("--modalities", choices=tuple(FOLDERS), default="both", help="what the network sees")
        add("--validation", type=flags.share, default=0.1, help="share of the images")
        add("--restart", type=positive_int, default=10, help="epochs between two warm restarts")
        add("--quick", action="store_true", help=f"train on {QUICK_IMAGES} images only")

    def layout_for(self, args: Namespace) -> Layout:
        """The folders of the modalities that the network sees."""
        channels = tuple(Channel(folder) for folder in FOLDERS[args.modalities])
        return dataclasses.replace(self.layout, channels=channels)

    def divide(self, args: Namespace, samples: DataFrame) -> DataFrame:
        """All samples, or with --quick a hundred with the same share of cancer, divided."""
        if args.quick and len(samples) > QUICK_IMAGES:
            samples = samples.loc[draw(samples["label"], QUICK_IMAGES / len(samples), args.seed)]
        return super().divide(args, samples)

    def results(self, samples: DataFrame, found: np.ndarray, classes: list[str]) -> DataFrame:
        """Each pair's name and probability of cancer."""
        return DataFrame({"name": samples.index, "probability": found[:, 1].round(6)})


main = Multimodal().main
