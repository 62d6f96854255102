"""A network of a system: what it is made of, what it sees; how it is trained, and used again."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lightning import seed_everything
from pandas import DataFrame
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from capstones.backbones import make_backbone
from capstones.checkpoints import last_path, load_best, load_weights
from capstones.classifier import Classifier, TrainedModule
from capstones.images import ImageSet
from capstones.training import Batches, fit, predict


class Network:
    """One network of a system, a classifier unless a subclass says otherwise.

    name: of its checkpoints. monitor: the validation metric that decides which epoch is the best,
    by its highest or lowest value (mode "max" or "min"). table: where in the run's folder the
    metrics of each epoch are written. flags: those that `build_model` and `transform` need.
    balanced: whether all classes are drawn equally often.
    """

    name = ""
    monitor, mode = "val_loss", "min"
    table = "metrics.csv"
    flags: tuple[str, ...] = ("backbone", "image_size")
    balanced = False
    optimizer: Callable[..., Optimizer] = torch.optim.AdamW

    def settings(self, args: Namespace, samples: DataFrame) -> dict:
        """What it takes to rebuild the model and to prepare images for it: plain values."""
        flags = {flag: getattr(args, flag) for flag in self.flags}
        return {**flags, "classes": list(samples["label"].cat.categories)}

    def build_model(self, settings: dict, pretrained: bool) -> nn.Module:
        """The model: float32 [B, C, S, S] -> logits [B, n_classes]."""
        n_classes = len(settings["classes"])
        return make_backbone(settings["backbone"], pretrained, num_classes=n_classes)

    def freeze(self, model: nn.Module) -> None:
        """Fix what is not trained of a model that starts from pretrained weights: nothing."""

    def transform(self, settings: dict, augment: bool) -> Callable:
        """From a sample's images to what the model sees, float32 [C, S, S]."""
        raise NotImplementedError

    def module(self, model: nn.Module, settings: dict) -> TrainedModule:
        """What Lightning trains and predicts with."""
        return Classifier(model, len(settings["classes"]))

    def make_optimizer(self, args: Namespace, parameters: Iterable[nn.Parameter]) -> dict:
        """What Lightning's configure_optimizers returns."""
        optimizer = self.optimizer(
            parameters, lr=args.learning_rate, weight_decay=args.weight_decay
        )
        schedule = self.make_schedule(args, optimizer)
        return {"optimizer": optimizer, **({"lr_scheduler": schedule} if schedule else {})}

    def make_schedule(self, args: Namespace, optimizer: Optimizer) -> LRScheduler | None:
        """The learning rate's, a step for each epoch; None: it is constant."""
        return None

    def own_args(self, args: Namespace) -> Namespace:
        """The flags with the values that this network takes."""
        return args

    def dataset(self, samples: DataFrame, settings: dict, augment: bool = False) -> Dataset:
        """Items: (what the model sees, code of the label)."""
        labels = samples["label"].cat.codes.tolist()
        return ImageSet(samples["images"], labels, self.transform(settings, augment))

    def training_set(
        self, samples: DataFrame, settings: dict, args: Namespace
    ) -> Dataset | Callable[[int], Dataset]:
        """The augmented training images, or a function from the epoch to them."""
        return self.dataset(samples, settings, augment=True)

    def batches(self, args: Namespace, settings: dict, samples: DataFrame) -> Batches:
        """Batches of the parts training and validation."""
        training, validation = (samples[samples["part"] == p] for p in ("training", "validation"))
        weights = None
        if self.balanced:
            labels = torch.tensor(training["label"].cat.codes.tolist())
            weights = (1 / labels.bincount().double())[labels]
        return Batches(
            self.training_set(training, settings, args),
            self.dataset(validation, settings),
            args.batch_size,
            args.workers,
            args.seed,
            weights,
        )


@dataclass
class Training:
    """A network that is ready to be trained: its samples are read, its model is built."""

    network: Network
    args: Namespace
    samples: DataFrame
    settings: dict
    model: nn.Module

    def run(self) -> None:
        """Train, or go on with a training; its best weights go to RUN/checkpoints/NAME_best.pth.

        Raises as capstones.training.fit.
        """
        network, args = self.network, self.args
        seed_everything(args.seed, verbose=False)
        module = network.module(self.model, self.settings)
        module.make_optimizer = partial(network.make_optimizer, args)
        batches = network.batches(args, self.settings, self.samples)
        fit(module, batches, args, network, self.settings)


def prepare(network: Network, args: Namespace, samples: DataFrame) -> Training:
    """Build the model. Raises UserError where that is not possible, and as network.settings."""
    args = network.own_args(args)
    settings = network.settings(args, samples)
    seed_everything(args.seed, verbose=False)
    begun = args.resume and last_path(args.run, network.name).exists()  # its weights come next
    model = network.build_model(settings, pretrained=not (args.no_pretrained or begun))
    if not args.no_pretrained:
        network.freeze(model)
    return Training(network, args, samples, settings, model)


def load_module(network: Network, args: Namespace) -> tuple[TrainedModule, dict]:
    """(the run's best weights in the network's module, settings).

    Raises UserError for a missing or damaged checkpoint.
    """
    checkpoint = load_best(args.run, network.name)
    settings = checkpoint["settings"]
    model = load_weights(network.build_model(settings, pretrained=False), checkpoint)
    return network.module(model, settings), settings


def probabilities(network: Network, args: Namespace, samples: DataFrame) -> np.ndarray:
    """What the run's best weights predict: float64 [N, n_classes], or [N] for a single logit.

    Raises as load_module.
    """
    module, settings = load_module(network, args)
    dataset = ImageSet(samples["images"], None, network.transform(settings, augment=False))
    return torch.cat(predict(module, dataset, args, args.batch_size)).double().cpu().numpy()
