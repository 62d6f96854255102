"""Part 1: classifiers and their training loops, 25 points, and 10 extra for a very good one."""

import numpy as np
import pytest

from autograde.feedback import Lost
from grader.checks import epochs, trainings
from grader.checks import models as checks
from grader.checks.models import fresh_rng, graded, noise, seed_of

MODELS, TRAIN = "classification_models", "classification_train"
CLASSES = {"LinearModel": "linear", "MLPModel": "mlp", "CNNModel": "cnn"}
FUNCTIONS = {
    "train_epoch": checks.TRAIN_EPOCH,
    "validate_epoch": ("model", "val_loader", "criterion", "device"),
    "train_model": checks.TRAIN_MODEL,
}
MIN_START = 0.35


@graded("1.1", "Names and signatures", 1)
def test_names(student):
    student.ask("load", {"module": MODELS})
    wanted = [*CLASSES, "get_model", "count_parameters"]
    found, _ = student.ask("members", {"module": MODELS, "names": wanted})
    student.ask("load", {"module": TRAIN})
    more, _ = student.ask("members", {"module": TRAIN, "names": list(FUNCTIONS)})
    checks.check_names(student, {**found, **more}, FUNCTIONS)
    for handle, short in CLASSES.items():
        request = {"module": MODELS, "name": "get_model", "args": [short], "handle": handle}
        student.ask("build", {**request, "seed": 0})


@graded("1.2", "Models answer logits", 2)
def test_shapes(student, rng):
    for name in CLASSES:
        with checks.written_in(student, MODELS, name):
            answers = []
            for classes in (9, 5, 9):
                checks.stirred(student, MODELS, name, rng, num_classes=classes)
                for batch in (1, 7, 32):
                    what = f"{name}(num_classes={classes})'s logits"
                    images, shape = noise(rng, batch), (batch, classes)
                    answers.append(checks.forward(student, "model", images, shape, what))
            check_logits(name, answers)


def check_logits(name: str, answers: list[np.ndarray]) -> None:
    """A softmax, sigmoid or ReLU at the end shows in three models' answers to many images."""
    low, high = min(a.min() for a in answers), max(a.max() for a in answers)
    if low >= 0 and high <= 1 and all(np.allclose(a.sum(axis=1), 1, atol=1e-3) for a in answers):
        raise Lost(
            f"{name}'s logits, which may be any numbers",
            "rows of numbers from 0 to 1 that sum to 1",
            "there is a softmax in the model; CrossEntropyLoss applies it itself.",
        )
    if low == 0:
        raise Lost(
            f"{name}'s logits, which may be any numbers",
            "no negative number, and some that are exactly 0",
            "there is a ReLU after the last layer.",
        )


@graded("1.3", "The linear model is linear, the MLP is not", 1)
def test_linear(student, rng):
    a, b = noise(rng, 8), noise(rng, 8)
    for name, straight in (("LinearModel", True), ("MLPModel", False)):
        with checks.written_in(student, MODELS, name):
            checks.stirred(student, MODELS, name, rng)
            x, y, middle = (
                checks.forward(student, "model", p, (8, 9), name) for p in (a, b, (a + b) / 2)
            )
            checks.check_linear(name, straight, x, y, middle)


@graded("1.4", "The CNN sees each image by itself, and what is near together", 1)
def test_cnn(student, rng):
    checks.stirred(student, MODELS, "CNNModel", rng)
    with checks.written_in(student, MODELS, "CNNModel"):
        images = noise(rng, 6)
        together = checks.forward(student, "model", images, (6, 9), "CNNModel")
        checks.check_alone(student, together, images, "CNNModel")
        if not np.any(together != together[0]):
            raise Lost("logits that depend on the image", "the same logits for all images")
        near = joint_effect(student, rng, (12, 12), (12, 15))
        far = joint_effect(student, rng, (3, 3), (21, 21))
        if far > 0.92 * near:
            raise Lost(
                "two patches side by side to have a joint effect on the logits that is greater "
                "than that of two patches far apart",
                f"a joint effect of {far:.3g} far apart and {near:.3g} side by side",
                "the network has no convolutions: to a linear layer, all pixels are neighbours.",
            )


def joint_effect(student, rng, first: tuple[int, int], second: tuple[int, int]) -> float:
    """How much two patches change the logits together, beyond what each does by itself.

    Far apart it is as great as side by side for an MLP (ratio 0.95 to 1.05 over many draws), and
    smaller for convolutions (0.55 for a single one before linear layers, 0.42 for a ResNet-18, 0.36
    for instance norm, less for others). The patches are no stronger than the noise around them:
    what strong ones do to the statistics of group norm is a joint effect too, however far apart.
    """
    n = 256
    images, patches = noise(rng, n), []
    for row, column in (first, second):
        patch = np.zeros_like(images)
        patch[:, :, row : row + 3, column : column + 3] = rng.choice([-1, 1], (n, 3, 3, 3))
        patches.append(patch)
    a, b = patches
    both, one, other, none = (
        checks.forward(student, "model", images + p, (n, 9), "CNNModel").astype(np.float64)
        for p in (a + b, a, b, 0 * a)
    )
    return float(np.sqrt(np.square(both - one - other + none).mean()))


@graded("1.5", "Gradients reach every parameter", 2)
def test_gradients(student, rng):
    for name in CLASSES:
        with checks.written_in(student, MODELS, name):
            make = lambda handle, name=name: checks.stirred(student, MODELS, name, rng, handle)  # noqa: E731
            checks.check_weights(student, rng, name, make)


@graded("1.6", "get_model and count_parameters", 1)
def test_get_model(student, rng):
    student.ask("load", {"module": MODELS})
    for short in CLASSES.values():
        request = {"module": MODELS, "name": "get_model", "args": [short], "seed": seed_of(rng)}
        shapes, _ = student.ask("build", {**request, "handle": "model"})
        with checks.written_in(student, MODELS, "count_parameters"):
            checks.check_count(student, MODELS, "model", short, shapes)


@graded("1.7", "train_epoch trains", 5)
def test_train_epoch(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "train_epoch"):
        epochs.check_training_epoch(student, rng, epochs.CLASSIFICATION)


@graded("1.8", "train_epoch stops at max_steps", 2)
def test_max_steps(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "train_epoch"):
        epochs.check_max_steps(student, rng, epochs.CLASSIFICATION)


@graded("1.9", "validate_epoch measures and changes nothing", 3)
def test_validate_epoch(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "validate_epoch"):
        epochs.check_validation(student, rng, epochs.CLASSIFICATION)


@graded("1.10", "train_model returns a history, and the model has learned", 1)
def test_train_model(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "train_model"):
        trainings.check_train_model(student, rng, epochs.CLASSIFICATION)


@checks.trained_alone
def accuracy_after_100_steps(student, rng, private, name: str) -> float:
    """One training by the submission's train_epoch, which gets 100 batches of 32 and no more."""
    checks.made(student, MODELS, name, rng)
    student.ask("load", {"module": TRAIN})
    images, labels = private.tissue(rng, checks.STEPS * checks.BATCH)
    hidden, truth = private.tissue(rng, checks.HIDDEN, "val")

    def score() -> float:
        logits = checks.forward(student, "model", hidden, (len(hidden), 9), f"{name}'s logits")
        return float((logits.argmax(axis=1) == truth).mean())

    start = score()
    if start > MIN_START:
        raise Lost(
            "a new model to guess, which gives about 0.11 accuracy",
            f"{start:.2f} before any training",
            "weights are in the source; only checkpoints/ may hold trained weights.",
        )
    # From here on the classes have other numbers, in every training: what a submission may know of
    # them beforehand does not fit, and nothing changes for one that learns from its batches.
    order, renumbered = rng.permutation(9), np.empty(9, np.int64)
    renumbered[order] = np.roll(order, 1)  # no class keeps its number
    labels, truth = renumbered[labels], renumbered[truth]
    trainings.train_100_steps(student, epochs.CLASSIFICATION, images, labels)
    return score()


@graded("1.11", "MLP after 100 steps: accuracy 0.28", 1)
def test_mlp_100(student, rng, private, unless_fast):
    run = lambda: accuracy_after_100_steps(student, rng, private, "MLPModel")  # noqa: E731
    checks.threshold("MLP", "accuracy", 0.28, 0.15, run)


@graded("1.12", "CNN after 100 steps: accuracy 0.54", 3)
def test_cnn_100(student, rng, private, unless_fast):
    run = lambda: accuracy_after_100_steps(student, rng, private, "CNNModel")  # noqa: E731
    checks.threshold("CNN", "accuracy", 0.54, 0.28, run)


@pytest.fixture(scope="module")
def final_accuracy(student, private) -> float:
    """Of the submitted checkpoint, on fresh images, the same for both tests."""
    rng = fresh_rng()
    checks.final_model(student, "classification", MODELS, "get_model")
    images, labels = private.tissue(rng, 2 * checks.HIDDEN, "val")
    logits = checks.forward(student, "final", images, (len(images), 9), "the checkpoint's logits")
    return float((logits.argmax(axis=1) == labels).mean())


@graded("1.13", "Final model: accuracy 0.90", 2)
def test_final(final_accuracy):
    checks.final("accuracy", 0.90, 0.70, final_accuracy)


@graded("3.1", "Extra credit: final accuracy 0.99", 10)
def test_extra(final_accuracy):
    checks.final("accuracy", 0.99, 0.97, final_accuracy)
