"""What `evaluate` reports of a classifier: numbers on the screen and in JSON, and pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pathlab.errors import UserError
from pathlab.files import make_folder, write_json
from pathlab.training import plots
from pathlab.training.evaluate import Predictions


def classification_scores(test: Predictions, classes: Sequence[str]) -> dict:
    """accuracy, balanced accuracy, ROC-AUC, and precision, recall and F1 as means over the classes.

    Means are over the classes that have images. ROC-AUC is None where a class has none. Also the
    three scores of each class, and the confusion matrix (rows: truth).
    """
    per_class, confusion = test.per_class(), test.confusion()
    present = confusion.sum(axis=1) > 0
    if not present.any():
        raise UserError("there is no image to evaluate.")
    return {
        "images": len(test.labels),
        "accuracy": test.accuracy,
        "balanced_accuracy": float(per_class["recall"][present].mean()),
        "auroc": test.auc(),
        **{name: float(values[present].mean()) for name, values in per_class.items()},
        "classes": {
            name: {score: float(values[i]) for score, values in per_class.items()}
            | {"images": int(confusion[i].sum())}
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }


def report_classification(
    test: Predictions, classes: Sequence[str], folder: Path, name: str = "classification"
) -> dict:
    """Print the scores; write NAME.json and NAME_confusion.png into the folder; return them.

    Raises UserError if they cannot be written.
    """
    make_folder(folder)
    scores = classification_scores(test, classes)
    print(test.report(classes))
    write_json(folder / f"{name}.json", scores)
    plots.confusion_matrix(test, classes, folder / f"{name}_confusion.png")
    auroc = "not defined" if scores["auroc"] is None else f"{scores['auroc']:.4f}"
    print(
        f"accuracy {scores['accuracy']:.4f}, balanced accuracy {scores['balanced_accuracy']:.4f}, "
        f"F1 (macro) {scores['f1']:.4f}, ROC-AUC {auroc}; written to {folder}"
    )
    return scores


def predictions(batches: list, labels: Sequence[int], part: str) -> Predictions:
    """Predictions of batches of probabilities, tensors [B, K], for the labels in the same order.

    part: of the data, as --part has it.
    """
    probabilities = np.concatenate([batch.double().cpu().numpy() for batch in batches])
    return Predictions(probabilities, np.asarray(labels, dtype=np.int64), part)
