"""Part 2: segmenters, scores, losses and their training loops.

Titles, points and thresholds stand in assignment.toml, by each test's number.
"""

from functools import partial

import numpy as np

from autograde.plugin import graded
from grader.checks import checkpoints, epochs, models, reference, scores, trainings
from grader.checks.models import probabilities_of
from grader.checks.student import Student
from grader.checks.tasks import SEGMENTATION as TASK
from grader.checks.trainings import Schedule

MAX_IOU = {"MLPSegmentation": 0.20, "CNNSegmentation": 0.45, "TinyUNet": 0.45}  # untrained


@graded("2.1")
def test_names(student):
    models.check_names(student)
    for short in TASK.classes.values():
        model = student.build("get_segmentation_model", short)
        with student.explaining("count_parameters"):
            models.check_count(model, short)


@graded("2.2")
def test_models_return_probabilities(student):
    for name in TASK.classes:
        model = student.build_perturbed(name)
        with student.explaining(name):
            for batch_size in (1, 7, 32):
                images = student.noise(batch_size)
                output = probabilities_of(model, images, name)
            models.check_sigmoid(name, output, probabilities_of(model, 1e6 * images, name))
            models.check_independence(model, output[:3], images[:3], name)


@graded("2.3")
def test_linear_and_mlp(student):
    models.check_linear(student, "LinearSegmentation", linear=True)
    models.check_linear(student, "MLPSegmentation", linear=False)


@graded("2.4")
def test_gradients(student):
    for name in TASK.classes:
        with student.explaining(name):
            models.check_parameters(student, name)


@graded("2.5")
def test_unet_skips(student):
    model = student.build("TinyUNet")
    with student.explaining("TinyUNet"):
        heights = model.concatenations(student.noise(2))
        # With the skip 0.97 or more after three rounds (0.83 without batch norm, and 0.93 after
        # four); without it 0.82 or less after four.
        for _ in range(4):
            images = student.noise(640)
            model.train_on_masks(images, (images[:, :1] > 0).astype(np.float32), 3e-3, 16)
            images = student.noise(32)
            iou = reference.iou(probabilities_of(model, images, "TinyUNet"), images[:, :1] > 0)
            if iou >= 0.85:
                break
        models.check_skips(heights, iou)


@graded("2.6")
def test_calculate_iou(student):
    with student.explaining("calculate_iou"):
        for threshold in (0.8, 0.5):
            right = partial(reference.iou, threshold=threshold)
            scores.check_score(student, "calculate_iou", "iou", right, threshold=threshold)


@graded("2.7")
def test_dice_loss(student):
    with student.explaining("DiceLoss"):
        for smooth in (3.0, 1.0):
            right = partial(reference.dice_loss, smooth=smooth)
            scores.check_loss(student, "DiceLoss", "dice", right, smooth=smooth)


@graded("2.8")
def test_combined_loss(student):
    with student.explaining("CombinedLoss"):
        for bce, dice in ((0.3, 0.9), (0.5, 0.5)):
            weights = {"bce_weight": bce, "dice_weight": dice}
            right = partial(reference.combined_loss, **weights)
            scores.check_loss(student, "CombinedLoss", "combined", right, **weights)


@graded("2.9")
def test_train_epoch(student):
    with student.explaining("train_segmentation_epoch"):
        epochs.check_training_epoch(student)
        epochs.check_max_steps(student)


@graded("2.10")
def test_validate_epoch(student):
    with student.explaining("validate_segmentation_epoch"):
        epochs.check_validation(student)


@graded("2.11")
def test_train_model(student):
    with student.explaining("train_segmentation_model"):
        trainings.check_train_model(student)


@graded("2.12")
def test_evaluate(student):
    with student.explaining("evaluate_segmentation_model"):
        trainings.check_evaluation(student)


def iou_after_training(student: Student, data, schedule: Schedule, name: str) -> float:
    """One training by the submission's own epoch function, on images that it has never seen."""
    model = student.build(name)
    images, masks = data.boxes(student.rng, schedule.images)
    hidden, truth = data.boxes(student.rng, schedule.scored_images, "val")
    untrained = reference.iou(probabilities_of(model, hidden, name), truth)
    trainings.check_untrained(untrained, MAX_IOU[name], "IoU")
    schedule.train(model, images, masks)
    return reference.iou(probabilities_of(model, hidden, name), truth)


@graded("2.13")
def test_mlp_after_100_steps(student, data, schedule, target, unless_fast):
    score = lambda: iou_after_training(student, data, schedule, "MLPSegmentation")  # noqa: E731
    schedule.best_of(student.session, target, score)


@graded("2.14")
def test_cnn_after_100_steps(student, data, schedule, target, unless_fast):
    score = lambda: iou_after_training(student, data, schedule, "CNNSegmentation")  # noqa: E731
    schedule.best_of(student.session, target, score)


@graded("2.15")
def test_unet_after_100_steps(student, data, schedule, target, unless_fast):
    score = lambda: iou_after_training(student, data, schedule, "TinyUNet")  # noqa: E731
    schedule.best_of(student.session, target, score)


@graded("2.16")
def test_final_model(student, data, schedule, target):
    name, model = checkpoints.build_final(student)
    images, truth = data.boxes(student.rng, 2 * schedule.scored_images, "val")
    iou = reference.iou(probabilities_of(model, images, name), truth)
    checkpoints.check_final(target, iou)
