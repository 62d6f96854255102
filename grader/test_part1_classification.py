"""Part 1: classifiers and their training loops, and extra credit for a very good one.

Titles, points and thresholds stand in assignment.toml, by each test's number.
"""

import numpy as np
import pytest

from autograde.feedback import Lost
from autograde.fixtures import fresh_rng
from autograde.plugin import graded
from grader.checks import checkpoints, epochs, models, trainings
from grader.checks.student import Student
from grader.checks.tasks import CLASSIFICATION as TASK
from grader.checks.tasks import DEFAULT_CLASSES
from grader.checks.trainings import Schedule

MAX_ABOVE_CHANCE = 0.22  # accuracy of an untrained model, above that of the most frequent class


@graded("1.1")
def test_names(student):
    models.check_names(student)
    for short in TASK.classes.values():
        student.build("get_model", short)


@graded("1.2")
def test_models_return_logits(student):
    for name in TASK.classes:
        with student.explaining(name):
            outputs = []
            for classes in (9, 5, 9):
                model = student.build_perturbed(name, options={"num_classes": classes})
                for batch_size in (1, 7, 32):
                    what = f"{name}(num_classes={classes})"
                    images = student.noise(batch_size)
                    outputs.append(models.logits_of(model, images, what, classes))
            models.check_logits(name, outputs)


@graded("1.3")
def test_linear_and_mlp(student):
    models.check_linear(student, "LinearModel", linear=True)
    models.check_linear(student, "MLPModel", linear=False)


@graded("1.4")
def test_cnn(student):
    model, images = student.build_perturbed("CNNModel"), student.noise(6)
    with student.explaining("CNNModel"):
        logits = models.logits_of(model, images, "CNNModel")
        models.check_independence(model, logits, images, "CNNModel")
        if not np.any(logits != logits[0]):
            raise Lost("logits that depend on the image", "the same logits for all images")
        models.check_locality(model, student)


@graded("1.5")
def test_gradients(student):
    for name in TASK.classes:
        with student.explaining(name):
            models.check_parameters(student, name)


@graded("1.6")
def test_get_model_and_count_parameters(student):
    for short in TASK.classes.values():
        model = student.build("get_model", short)
        with student.explaining("count_parameters"):
            models.check_count(model, short)


@graded("1.7")
def test_train_epoch(student):
    with student.explaining("train_epoch"):
        epochs.check_training_epoch(student)


@graded("1.8")
def test_max_steps(student):
    with student.explaining("train_epoch"):
        epochs.check_max_steps(student)


@graded("1.9")
def test_validate_epoch(student):
    with student.explaining("validate_epoch"):
        epochs.check_validation(student)


@graded("1.10")
def test_train_model(student):
    with student.explaining("train_model"):
        trainings.check_train_model(student)


def accuracy_after_training(student: Student, data, schedule: Schedule, name: str) -> float:
    """One training by the submission's train_epoch, on images that it has never seen."""
    model = student.build(name, options=class_option(data.num_classes))
    images, labels = data.tissue(student.rng, schedule.images)
    hidden, truth = data.tissue(student.rng, schedule.scored_images, "val")

    def accuracy() -> float:
        logits = models.logits_of(model, hidden, name, data.num_classes)
        return float((logits.argmax(axis=1) == truth).mean())

    chance = float(np.bincount(truth).max() / len(truth))
    trainings.check_untrained(accuracy(), chance + MAX_ABOVE_CHANCE, "accuracy")
    # From here on the classes have other numbers, in every training: what a submission may know of
    # them beforehand does not fit, and nothing changes for one that learns from its batches.
    order = student.rng.permutation(data.num_classes)
    renumbered = np.empty_like(order)
    renumbered[order] = np.roll(order, 1)  # no class keeps its number
    labels, truth = renumbered[labels], renumbered[truth]
    schedule.train(model, images, labels)
    return accuracy()


def class_option(num_classes: int) -> dict[str, int]:
    """What a classifier is built with; nothing where its default is meant."""
    return {} if num_classes == DEFAULT_CLASSES else {"num_classes": num_classes}


@graded("1.11")
def test_mlp_after_100_steps(student, data, schedule, target, unless_fast):
    score = lambda: accuracy_after_training(student, data, schedule, "MLPModel")  # noqa: E731
    schedule.best_of(student.session, target, score)


@graded("1.12")
def test_cnn_after_100_steps(student, data, schedule, target, unless_fast):
    score = lambda: accuracy_after_training(student, data, schedule, "CNNModel")  # noqa: E731
    schedule.best_of(student.session, target, score)


@pytest.fixture(scope="module")
def final_accuracy(student, data, schedule) -> float:
    """Of the submitted checkpoint, on fresh images, the same for both tests."""
    _, model = checkpoints.build_final(student, class_option(data.num_classes))
    images, labels = data.tissue(fresh_rng(), 2 * schedule.scored_images, "val")
    logits = models.logits_of(model, images, "the checkpoint", data.num_classes)
    return float((logits.argmax(axis=1) == labels).mean())


@graded("1.13")
def test_final_model(final_accuracy, target):
    checkpoints.check_final(target, final_accuracy)


@graded("3.1")
def test_extra_credit(final_accuracy, target):
    checkpoints.check_final(target, final_accuracy)
