"""A classifier of several classes as a Lightning module: cross-entropy and its usual metrics."""

from collections.abc import Callable

import lightning as L
import torch
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
)

from capstones.training import finite


class Classifier(L.LightningModule):
    """Trains `model`: float32 [B, C, H, W] -> logits [B, n_classes], with cross-entropy.

    make_optimizer: from the parameters that are to be trained to what Lightning's
    configure_optimizers returns. Batches are (images, labels int64 [B]). Logged in validation:
    val_loss, val_accuracy, val_balanced_accuracy, val_f1 (macro), val_auroc (macro). predict_step
    returns probabilities [B, n_classes].
    """

    def __init__(self, model: nn.Module, n_classes: int, make_optimizer: Callable):
        super().__init__()
        self.model, self.make_optimizer = model, make_optimizer
        self.criterion = nn.CrossEntropyLoss()
        self.metrics = MetricCollection(
            {
                "val_accuracy": MulticlassAccuracy(n_classes, average="micro"),
                "val_balanced_accuracy": MulticlassAccuracy(n_classes, average="macro"),
                "val_f1": MulticlassF1Score(n_classes, average="macro"),
                "val_auroc": MulticlassAUROC(n_classes),
            }
        )

    def configure_optimizers(self):
        return self.make_optimizer([p for p in self.model.parameters() if p.requires_grad])

    def on_train_epoch_start(self) -> None:
        """Frozen parts keep the statistics of their batch norm, too."""
        for part in self.model.modules():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()

    def training_step(self, batch, index: int) -> torch.Tensor:
        images, labels = batch
        loss = finite(self.criterion(self.model(images), labels))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch, index: int) -> None:
        images, labels = batch
        logits = self.model(images)
        self.log("val_loss", self.criterion(logits, labels), prog_bar=True, sync_dist=True)
        self.metrics.update(logits.float().softmax(1), labels)
        self.log_dict(self.metrics)

    def predict_step(self, batch, index: int) -> torch.Tensor:
        images = batch[0] if isinstance(batch, (list, tuple)) else batch
        return self.model(images).float().softmax(1)
