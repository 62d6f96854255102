"""Scores of a trained classifier on images that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Predictions:
    """probabilities: float64 [N, K], rows sum to 1. labels: int64 [N], the truth. part: of the
    data, as tables and pictures name it."""

    probabilities: np.ndarray
    labels: np.ndarray
    part: str = "test"

    @property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        return float((self.predicted == self.labels).mean())

    def auc(self) -> float | None:
        """Area under the ROC curve as MedMNIST computes it: of class 1 where there are two
        classes, else the mean over one-against-the-rest. None where a class has no image."""
        from sklearn.metrics import roc_auc_score  # over a second to import

        classes = np.arange(self.probabilities.shape[1])
        if len(classes) < 2 or len(np.unique(self.labels)) < len(classes):
            return None
        if len(classes) == 2:
            return float(roc_auc_score(self.labels, self.probabilities[:, 1]))
        one_hot = self.labels[:, None] == classes
        return float(roc_auc_score(one_hot, self.probabilities, average="macro"))

    def confusion(self) -> np.ndarray:
        """int64 [K, K]: how many images of class `row` were taken for class `column`."""
        k = self.probabilities.shape[1]
        return np.bincount(self.labels * k + self.predicted, minlength=k * k).reshape(k, k)

    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall and f1, each float64 [K] in [0, 1]; 0 where nothing can be divided."""
        confusion = self.confusion()
        hits = np.diag(confusion)
        asked, answered = confusion.sum(axis=1), confusion.sum(axis=0)
        return {
            "precision": hits / np.maximum(answered, 1),
            "recall": hits / np.maximum(asked, 1),
            "f1": 2 * hits / np.maximum(asked + answered, 1),
        }

    def report(self, class_names: Sequence[str]) -> str:
        """precision, recall, F1 and number of images of each class as a table of text."""
        title = f"{self.part} images"
        width = max(len(name) for name in [*class_names, title])
        lines = [f"{title:<{width}}  precision  recall     F1  images"]
        scores = self.per_class()
        for label, name in enumerate(class_names):
            precision, recall, f1 = (values[label] for values in scores.values())
            count = int((self.labels == label).sum())
            lines.append(f"{name:<{width}}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}  {count:6d}")
        return "\n".join(lines)


@torch.no_grad()
def predict(model: torch.nn.Module, loader: DataLoader, device: torch.device) -> Predictions:
    """The model's class probabilities for all images of a loader, in evaluation mode."""
    model.eval()
    probabilities, labels = [], []
    for images, batch_labels in loader:
        logits = model(images.to(device)).cpu().double()  # MPS has no float64
        probabilities.append(logits.softmax(dim=1).numpy())
        labels.append(batch_labels.numpy())
    return Predictions(np.concatenate(probabilities), np.concatenate(labels))
