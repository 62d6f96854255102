"""What Lightning trains: a module for every network, and the classifier of all four systems."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryF1Score,
    BinaryRecall,
    BinarySpecificity,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
)

from pathlab.errors import UserError

Optimizer = Callable[[Iterable[nn.Parameter]], Any]  # -> what configure_optimizers returns


class TrainedModule(L.LightningModule):
    """Trains `model` with the loss that a subclass defines; logs train_loss.

    make_optimizer: from the parameters that are to be trained to what Lightning's
    configure_optimizers returns; None where nothing will be trained.
    """

    def __init__(self, model: nn.Module, make_optimizer: Optimizer | None = None) -> None:
        super().__init__()
        self.model, self.make_optimizer = model, make_optimizer

    def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """The training loss of a batch, float32 []."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        """Called by Lightning."""
        assert self.make_optimizer is not None
        return self.make_optimizer([p for p in self.model.parameters() if p.requires_grad])

    def on_train_epoch_start(self) -> None:
        """Frozen parts keep the statistics of their batch norm, too."""
        for part in self.model.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Raises UserError for a loss that is not a number, before it spoils the weights."""
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise UserError(
                "the training loss is not a finite number any more. Try a tenth of "
                "--learning-rate, --clip 1.0, or --precision 32."
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss


class Classifier(TrainedModule):
    """A classifier: images float32 [B, C, H, W] -> logits [B, n_outputs]. Labels: int64 [B].

    With two or more outputs cross-entropy is trained; logged in validation are val_loss,
    val_accuracy, val_balanced_accuracy, val_f1 (macro) and val_auroc (macro), and predict_step
    returns probabilities [B, n_outputs].

    With one output binary cross-entropy is trained, in which positive images have the weight
    pos_weight; logged are val_loss, val_auroc, and at the threshold 0.5 val_sensitivity,
    val_specificity and val_f1_score, and predict_step returns the probability [B] of the positive
    class. mirrored: predict_step returns the mean of each image's and its mirror image's.
    """

    def __init__(
        self,
        model: nn.Module,
        n_outputs: int,
        make_optimizer: Optimizer | None = None,
        pos_weight: float = 1.0,
        mirrored: bool = False,
    ) -> None:
        super().__init__(model, make_optimizer)
        self.binary, self.mirrored = n_outputs == 1, mirrored
        self.criterion: nn.Module
        metrics: dict
        if self.binary:
            self.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(float(pos_weight)))
            metrics = {
                "auroc": BinaryAUROC(),
                "sensitivity": BinaryRecall(),
                "specificity": BinarySpecificity(),
                "f1_score": BinaryF1Score(),
            }
        else:
            self.criterion = nn.CrossEntropyLoss()
            metrics = {
                "accuracy": MulticlassAccuracy(n_outputs, average="micro"),
                "balanced_accuracy": MulticlassAccuracy(n_outputs, average="macro"),
                "f1": MulticlassF1Score(n_outputs, average="macro"),
                "auroc": MulticlassAUROC(n_outputs),
            }
        self.metrics = MetricCollection(metrics, prefix="val_")

    def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of a batch (images, labels), binary with one output."""
        images, labels = batch
        return self._loss(self.model(images), labels)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Logs the loss and the metrics."""
        images, labels = batch
        logits = self.model(images)
        self.log("val_loss", self._loss(logits, labels), prog_bar=True, sync_dist=True)
        self.metrics.update(self._probabilities(logits), labels)
        self.log_dict(self.metrics)

    def predict_step(self, images: torch.Tensor, index: int) -> torch.Tensor:
        """Probabilities, float32 [B, n_outputs]; with one output [B]."""
        probabilities = self._probabilities(self.model(images))
        if self.mirrored:
            mirrored = self._probabilities(self.model(images.flip(-1)))
            probabilities = (probabilities + mirrored) / 2
        return probabilities

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.binary:
            return self.criterion(logits[:, 0], labels.to(logits.dtype))
        return self.criterion(logits, labels)

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        return logits[:, 0].sigmoid() if self.binary else logits.softmax(1)
