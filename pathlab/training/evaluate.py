"""Scores of a trained classifier on images that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

# scikit-learn takes over a second to import, so the functions below import it when they need it.


@dataclass(frozen=True)
class Predictions:
    """probabilities: float64 [N, K], rows sum to 1. labels: int64 [N], the truth. part: the part of
    the data, as tables and pictures name it."""

    probabilities: np.ndarray
    labels: np.ndarray
    part: str = "test"

    @property
    def predicted(self) -> np.ndarray:
        """The most likely class of each image, int64 [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """The share of images whose most likely class is the true one, in [0, 1]."""
        return float((self.predicted == self.labels).mean())

    def auc(self) -> float | None:
        """Area under the ROC curve as MedMNIST computes it: of class 1 where there are two
        classes, else the mean over one-against-the-rest. None where a class has no image."""
        from sklearn.metrics import roc_auc_score

        k = self.probabilities.shape[1]
        if k < 2 or len(np.unique(self.labels)) < k:
            return None
        if k == 2:
            return float(roc_auc_score(self.labels, self.probabilities[:, 1]))
        one_hot = self.labels[:, None] == np.arange(k)
        return float(roc_auc_score(one_hot, self.probabilities, average="macro"))

    def confusion(self) -> np.ndarray:
        """int64 [K, K]: how many images of class `row` were predicted to be of class `column`."""
        from sklearn.metrics import confusion_matrix

        classes = range(self.probabilities.shape[1])
        return confusion_matrix(self.labels, self.predicted, labels=classes)

    def per_class(self) -> dict[str, np.ndarray]:
        """precision, recall and f1, each float64 [K] in [0, 1]; 0 where the quotient is 0 / 0."""
        from sklearn.metrics import precision_recall_fscore_support

        options = {"labels": range(self.probabilities.shape[1]), "zero_division": 0}
        scores = precision_recall_fscore_support(self.labels, self.predicted, **options)
        return dict(zip(("precision", "recall", "f1"), scores[:3], strict=True))

    def report(self, class_names: Sequence[str]) -> str:
        """precision, recall, F1 and number of images of each class as a table of text."""
        from sklearn.metrics import classification_report

        options = {"target_names": list(class_names), "digits": 3, "zero_division": 0}
        classes = range(len(class_names))
        table = classification_report(self.labels, self.predicted, labels=classes, **options)
        return f"{self.part} images\n{table.rstrip()}"


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
