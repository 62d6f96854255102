"""Part 2: segmenters, scores, losses and their training loops, 25 points."""

import numpy as np

from autograde.feedback import Lost
from grader.checks import averages, epochs, reference, trainings
from grader.checks import models as checks
from grader.checks.models import graded, noise

MODELS, TRAIN = "segmentation_models", "segmentation_train"
CLASSES = {
    "LinearSegmentation": "linear",
    "MLPSegmentation": "mlp",
    "CNNSegmentation": "cnn",
    "TinyUNet": "unet",
}
FUNCTIONS = {
    "train_segmentation_epoch": checks.TRAIN_EPOCH,
    "validate_segmentation_epoch": ("model", "val_loader", "criterion", "device"),
    "train_segmentation_model": checks.TRAIN_MODEL,
    "evaluate_segmentation_model": ("model", "test_loader", "dataset_name"),
}
MAX_START = {"MLPSegmentation": 0.20, "CNNSegmentation": 0.45, "TinyUNet": 0.45}  # of new models


def answer_of(student, images: np.ndarray, name: str, handle: str = "model") -> np.ndarray:
    """The model's probabilities, or Lost."""
    shape = (len(images), 1, 28, 28)
    answer = checks.forward(student, handle, images, shape, f"{name}'s probabilities")
    if answer.min() < 0 or answer.max() > 1:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            f"values from {answer.min():.2f} to {answer.max():.2f}",
            "these are logits: the sigmoid at the model's end is missing.",
        )
    return answer


def masks(rng, n: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and true masks [n, 1, 28, 28] of very different sizes. In the first image both
    are nearly empty, in the second the truth is empty and the prediction is not."""
    predicted = rng.random((n, 1, 28, 28)).astype(np.float32)
    true = (rng.random((n, 1, 28, 28)) > rng.uniform(0.3, 0.97, (n, 1, 1, 1))).astype(np.float32)
    predicted[0], true[0], true[1] = predicted[0] * 0.01, 0, 0
    return predicted, true


@graded("2.1", "Names and signatures", 1)
def test_names(student):
    student.ask("load", {"module": MODELS})
    wanted = [*CLASSES, "get_segmentation_model", "count_parameters", "calculate_iou"]
    wanted += ["DiceLoss", "CombinedLoss"]
    found, _ = student.ask("members", {"module": MODELS, "names": wanted})
    student.ask("load", {"module": TRAIN})
    more, _ = student.ask("members", {"module": TRAIN, "names": list(FUNCTIONS)})
    checks.check_names(student, {**found, **more}, FUNCTIONS)
    for short in CLASSES.values():
        request = {"module": MODELS, "name": "get_segmentation_model", "args": [short], "seed": 0}
        shapes, _ = student.ask("build", {**request, "handle": "model"})
        with checks.written_in(student, MODELS, "count_parameters"):
            checks.check_count(student, MODELS, "model", short, shapes)


@graded("2.2", "Models answer probabilities for every pixel", 2)
def test_shapes(student, rng):
    for name in CLASSES:
        checks.stirred(student, MODELS, name, rng)
        with checks.written_in(student, MODELS, name):
            for batch in (1, 7, 32):
                images = noise(rng, batch)
                answer = answer_of(student, images, name)
            check_sigmoid(name, answer, answer_of(student, 1e6 * images, name))
            checks.check_alone(student, answer[:3], images[:3], name)


def check_sigmoid(name: str, answer: np.ndarray, strong: np.ndarray) -> None:
    """One sigmoid, of any number. strong: the answer for images of a contrast so great that a new
    model's logits are far from 0 (of 100 new models each, 0 were accused, and 1 missed)."""
    both = np.stack([answer, strong])
    if both.min() >= 0.5 and both.max() <= 0.7311 and np.ptp(strong) > 0.1:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            f"values from {both.min():.2f} to {both.max():.2f} only",
            "a sigmoid is applied to what are probabilities already.",
        )
    if both.min() >= 0.5 and np.mean(both == 0.5) > 0.01:
        raise Lost(
            f"{name}'s probabilities, from 0 to 1",
            "none below 0.5, and many of exactly 0.5",
            "there is a ReLU after the last layer, before the sigmoid.",
        )


@graded("2.3", "The linear model is linear, the MLP is not", 1)
def test_linear(student, rng):
    a, b = noise(rng, 8), noise(rng, 8)
    for name, straight in (("LinearSegmentation", True), ("MLPSegmentation", False)):
        checks.stirred(student, MODELS, name, rng)
        logits = []
        with checks.written_in(student, MODELS, name):
            for images in (a, b, (a + b) / 2):
                p = answer_of(student, images, name).astype(np.float64).clip(1e-9, 1 - 1e-9)
                logits.append(np.log(p / (1 - p)))
            checks.check_linear(name, straight, *logits)


@graded("2.4", "Gradients reach every parameter", 2)
def test_gradients(student, rng):
    for name in CLASSES:
        with checks.written_in(student, MODELS, name):
            make = lambda handle, name=name: checks.stirred(student, MODELS, name, rng, handle)  # noqa: E731
            checks.check_weights(student, rng, name, make)


@graded("2.5", "The U-Net's skips carry information", 2)
def test_skips(student, rng):
    checks.made(student, MODELS, "TinyUNet", rng)
    with checks.written_in(student, MODELS, "TinyUNet"):
        joins, _ = student.ask("concatenations", {"handle": "model"}, {"images": noise(rng, 2)})
        sizes = [join[1] for join in joins if isinstance(join, list) and len(join) == 2]
        # With the skip 0.97 or more after three rounds (0.83 without batch norm, and 0.93 after
        # four); without it 0.82 or less after four.
        for _ in range(4):
            images = noise(rng, 640)
            batches = {"images": images, "targets": (images[:, :1] > 0).astype(np.float32)}
            request = {"handle": "model", "learning_rate": 3e-3, "batch": 16}
            student.ask("learn", request, batches, seconds=200)
            images = noise(rng, 32)
            score = reference.iou(answer_of(student, images, "TinyUNet"), images[:, :1] > 0)
            if score >= 0.85:
                break
        expected = "encoder features joined with the decoder's (torch.cat along dim=1) at two "
        expected += "sizes or more, 28x28 among them, and single pixels that get through them: "
        expected += "after 160 steps the sign of each pixel, IoU above 0.85"
        got = f"joins at sizes {sizes}" if sizes else "no torch.cat of feature maps"
        if score < 0.85 and 28 in sizes:
            cause = "the skip at 28x28 is taken from the wrong level, or does not reach the output."
        elif score < 0.85:
            cause = "the skip at 28x28 is missing."
        elif 28 not in sizes:
            cause = "the skip at 28x28 is added instead of concatenated."
        elif len(sizes) < 2:
            cause = "the skips at smaller sizes are missing, or added instead of concatenated."
        else:
            return
        raise Lost(expected, f"{got}; IoU {score:.2f}", cause)


def check_score(student, rng, name: str, right, mistakes: dict, others=(), **request) -> None:
    """A number that the submission computes from random masks, against `right(p, t, mistake)`.

    others: mistakes that cost their points elsewhere, and none here.
    """
    while True:
        predicted, true = masks(rng)
        expected = right(predicted, true, None)
        wrong = {mistake: right(predicted, true, mistake) for mistake in mistakes}
        # Equal are only those that must be, such as swapped weights of 0.5 and 0.5.
        if all(
            number == expected or averages.apart(expected, number, 1e-4)
            for number in wrong.values()
        ):
            break
    student.ask("load", {"module": MODELS})
    arrays = {"predicted": predicted, "true": true}
    value, out = student.ask("score", {"module": MODELS, "name": name, **request}, arrays)
    accepted = (expected, *(right(predicted, true, mistake) for mistake in others))
    if not any(averages.close(value, number, 1e-4) for number in accepted):
        causes = (mistakes[m] for m, number in wrong.items() if averages.close(value, number, 1e-4))
        empty = "0 / 0: " + mistakes.get("empty", mistakes.get("no smooth", ""))
        cause = empty if value == "nan" else next(causes, "")
        got = f"{value:.5f}" if isinstance(value, float) else str(value)[:50]
        raise Lost(f"{name} of four random masks: {expected:.5f}", got, cause)
    if request.get("is_class") and not np.any(out.get("gradient", 0)):
        raise Lost(
            f"{name} to have a gradient", "none", "a threshold or .item() inside cuts it off."
        )


@graded("2.6", "calculate_iou", 2)
def test_iou(student, rng):
    with checks.written_in(student, MODELS, "calculate_iou"):
        for threshold in (0.8, 0.5):
            check_score(
                student,
                rng,
                "calculate_iou",
                lambda p, t, m, limit=threshold: reference.iou(p, t, limit, m),
                reference.IOU_MISTAKES,
                call={"threshold": threshold},
            )


@graded("2.7", "DiceLoss", 2)
def test_dice(student, rng):
    with checks.written_in(student, MODELS, "DiceLoss"):
        for smooth in (3.0, 1.0):
            check_score(
                student,
                rng,
                "DiceLoss",
                lambda p, t, m, s=smooth: reference.dice_loss(p, t, s, m),
                reference.DICE_MISTAKES,
                is_class=True,
                kwargs={"smooth": smooth},
            )


@graded("2.8", "CombinedLoss", 2)
def test_combined(student, rng):
    with checks.written_in(student, MODELS, "CombinedLoss"):
        for weights in ((0.3, 0.9), (0.5, 0.5)):
            check_score(
                student,
                rng,
                "CombinedLoss",
                lambda p, t, m, w=weights: reference.combined_loss(p, t, *w, m),
                reference.COMBINED_MISTAKES,
                [f"dice: {mistake}" for mistake in reference.DICE_MISTAKES],
                is_class=True,
                kwargs=dict(zip(("bce_weight", "dice_weight"), weights, strict=True)),
            )


@graded("2.9", "train_segmentation_epoch trains, and stops at max_steps", 2)
def test_train_epoch(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "train_segmentation_epoch"):
        epochs.check_training_epoch(student, rng, epochs.SEGMENTATION)
        epochs.check_max_steps(student, rng, epochs.SEGMENTATION)


@graded("2.10", "validate_segmentation_epoch measures and changes nothing", 2)
def test_validate_epoch(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "validate_segmentation_epoch"):
        epochs.check_validation(student, rng, epochs.SEGMENTATION)


@graded("2.11", "train_segmentation_model returns a history, and the model has learned", 1)
def test_train_model(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "train_segmentation_model"):
        trainings.check_train_model(student, rng, epochs.SEGMENTATION)


@graded("2.12", "evaluate_segmentation_model", 1)
def test_evaluate(student, rng):
    student.ask("load", {"module": TRAIN})
    with checks.written_in(student, TRAIN, "evaluate_segmentation_model"):
        trainings.check_evaluation(student, rng, epochs.SEGMENTATION)


@checks.trained_alone
def iou_after_100_steps(student, rng, private, name: str) -> float:
    """One training by the submission's own epoch function: 100 batches of 32 and no more."""
    checks.made(student, MODELS, name, rng)
    student.ask("load", {"module": TRAIN})
    images, targets = private.boxes(rng, checks.STEPS * checks.BATCH)
    hidden, truth = private.boxes(rng, checks.HIDDEN, "val")
    start = reference.iou(answer_of(student, hidden, name), truth)
    if start > MAX_START[name]:
        raise Lost(
            "a new model to guess",
            f"an IoU of {start:.2f} before any training",
            "weights are in the source; only checkpoints/ may hold trained weights.",
        )
    trainings.train_100_steps(student, epochs.SEGMENTATION, images, targets)
    return reference.iou(answer_of(student, hidden, name), truth)


@graded("2.13", "MLP after 100 steps: IoU 0.38", 1)
def test_mlp_100(student, rng, private, unless_fast):
    run = lambda: iou_after_100_steps(student, rng, private, "MLPSegmentation")  # noqa: E731
    checks.threshold("MLP", "IoU", 0.38, 0.20, run)


@graded("2.14", "CNN after 100 steps: IoU 0.94", 1)
def test_cnn_100(student, rng, private, unless_fast):
    run = lambda: iou_after_100_steps(student, rng, private, "CNNSegmentation")  # noqa: E731
    checks.threshold("CNN", "IoU", 0.94, 0.45, run)


@graded("2.15", "U-Net after 100 steps: IoU 0.96", 2)
def test_unet_100(student, rng, private, unless_fast):
    run = lambda: iou_after_100_steps(student, rng, private, "TinyUNet")  # noqa: E731
    checks.threshold("U-Net", "IoU", 0.96, 0.45, run)


@graded("2.16", "Final model: IoU 0.97", 1)
def test_final(student, rng, private):
    model = checks.final_model(student, "segmentation", MODELS, "get_segmentation_model")
    images, truth = private.boxes(rng, 2 * checks.HIDDEN, "val")
    answer = answer_of(student, images, model, "final")
    checks.final("IoU", 0.97, 0.90, reference.iou(answer, truth))
