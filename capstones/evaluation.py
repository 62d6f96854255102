"""What `evaluate` reports of a classifier: numbers on the screen and in JSON, and pictures."""

from collections.abc import Sequence
from pathlib import Path

from pathlab.errors import UserError
from pathlab.files import make_folder, write_json
from pathlab.training import plots
from pathlab.training.evaluate import Predictions


def classification_scores(test: Predictions, classes: Sequence[str]) -> dict:
    """accuracy, balanced accuracy, ROC-AUC, and precision, recall and F1 as means over the classes.

    Means are over the classes that have images. ROC-AUC is None where a class has none. Also the
    three scores of each class, and the confusion matrix (rows: truth).
    """
    if not len(test.labels):
        raise UserError("there is no image to evaluate.")
    each, confusion = test.per_class(), test.confusion()
    images = confusion.sum(axis=1)
    means = {name: float(values[images > 0].mean()) for name, values in each.items()}
    return {
        "images": len(test.labels),
        "accuracy": test.accuracy,
        "balanced_accuracy": means["recall"],
        "auroc": test.auc(),
        **means,
        "classes": {
            name: {score: float(each[score][i]) for score in each} | {"images": int(images[i])}
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
    auroc = "not defined" if scores["auroc"] is None else f"{scores['auroc']:.4f}"
    print(
        f"balanced accuracy {scores['balanced_accuracy']:.4f}, accuracy {scores['accuracy']:.4f}, "
        f"F1 (macro) {scores['f1']:.4f}, ROC-AUC {auroc}; written to {folder}"
    )
    print(test.report(classes))
    write_json(folder / f"{name}.json", scores)
    plots.confusion_matrix(test, classes, folder / f"{name}_confusion.png")
    return scores
