"""What is right, computed with NumPy, and what known mistakes would give instead.

Each function takes `mistake`: None for the right answer, else one of the names in its docstring.
All arithmetic is float64.
"""

import numpy as np

Array = np.ndarray


def softmax(logits: Array) -> Array:
    """Rows [N, K] that sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(logits: Array, labels: Array, mistake: str | None = None) -> float:
    """Mean over N of -log softmax(logits)[label]. Mistake: "softmax" (before the loss, too)."""
    probabilities = softmax(softmax(logits) if mistake == "softmax" else logits)
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def iou(predicted: Array, true: Array, threshold: float = 0.5, mistake: str | None = None) -> float:
    """Mean over images of intersection over union; 1 where both masks are empty.

    Mistakes: see IOU_MISTAKES.
    """
    limit = 0.5 if mistake == "fixed" else threshold
    a = predicted.astype(np.float64) if mistake == "unthresholded" else predicted > limit
    b = (true > 0.5).astype(np.float64)
    axes = None if mistake == "batch" else (1, 2, 3)
    both, total = (a * b).sum(axes), a.sum(axes) + b.sum(axes)
    above, below = (2 * both, total) if mistake == "dice" else (both, total - both)
    empty = 0.0 if mistake == "empty" else 1.0
    return float(np.where(below > 0, above / np.where(below > 0, below, 1), empty).mean())


IOU_MISTAKES = {
    "unthresholded": "the probabilities are not compared with the threshold first.",
    "fixed": "the threshold is 0.5 whatever is asked for.",
    "batch": "one fraction for the whole batch; compute it for each image, then average.",
    "empty": "where both masks are empty they agree: that image's IoU is 1.",
    "dice": "this is Dice, 2 * intersection / (sum + sum), not intersection / union.",
}


def dice_loss(
    predicted: Array, true: Array, smooth: float = 1.0, mistake: str | None = None
) -> float:
    """1 - mean over images of (2 sum(pt) + smooth) / (sum(p) + sum(t) + smooth).

    Mistakes: see DICE_MISTAKES.
    """
    p, t = predicted.astype(np.float64), true.astype(np.float64)
    if mistake == "sigmoid":
        p = 1 / (1 + np.exp(-p))
    axes = None if mistake == "batch" else (1, 2, 3)
    factor = 1 if mistake == "no 2" else 2
    above = 1e-7 if mistake in ("no smooth", "smooth below") else smooth
    below = 1e-7 if mistake in ("no smooth", "smooth above") else smooth
    if mistake == "fixed":
        above = below = 1.0
    power = 2 if mistake == "squares" else 1
    total = (p**power).sum(axes) + (t**power).sum(axes)
    dice = (factor * (p * t).sum(axes) + above) / (total + below)
    return float(dice.mean() if mistake == "dice" else 1 - dice.mean())


DICE_MISTAKES = {
    "no 2": "the factor 2 before the intersection is missing.",
    "batch": "the sums run over the whole batch; compute each image's Dice, then average.",
    "no smooth": "`smooth` is missing, above and below the fraction line.",
    "smooth above": "`smooth` is missing below the fraction line.",
    "smooth below": "`smooth` is missing above the fraction line.",
    "fixed": "`smooth` is 1 whatever is asked for.",
    "dice": "this is Dice itself; the loss is 1 - Dice.",
    "sigmoid": "a sigmoid is applied to what are probabilities already.",
    "squares": "the sums below the fraction line are of squares; take the plain sums.",
}


def bce(predicted: Array, true: Array, mistake: str | None = None) -> float:
    """Mean binary cross-entropy of probabilities, logs clamped at -100 as PyTorch does.

    Mistakes: "logits" (BCE-with-logits of what are probabilities already), "sum" (no mean).
    """
    p, t = predicted.astype(np.float64), true.astype(np.float64)
    if mistake == "logits":
        p = 1 / (1 + np.exp(-p))
    with np.errstate(divide="ignore"):
        logs = t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log(1 - p), -100)
    return float(-logs.sum() if mistake == "sum" else -logs.mean())


def combined_loss(
    predicted: Array, true: Array, bce_weight: float, dice_weight: float, mistake: str | None = None
) -> float:
    """bce_weight * bce + dice_weight * dice_loss.

    Mistakes: those of COMBINED_MISTAKES, or "dice: " and one of DICE_MISTAKES.
    """
    weights = (bce_weight, dice_weight)
    if mistake == "no weights":
        weights = (1.0, 1.0)
    elif mistake == "half":
        weights = (0.5, 0.5)
    elif mistake == "swapped":
        weights = (dice_weight, bce_weight)
    elif mistake == "bce alone":
        weights = (bce_weight, 0.0)
    elif mistake == "dice alone":
        weights = (0.0, dice_weight)
    wrong_dice = mistake.removeprefix("dice: ") if (mistake or "").startswith("dice: ") else None
    dice = dice_loss(predicted, true, mistake=wrong_dice)
    return weights[0] * bce(predicted, true, mistake) + weights[1] * dice


COMBINED_MISTAKES = {
    "no weights": "the two weights are not used.",
    "half": "the weights are 0.5 and 0.5 whatever is asked for.",
    "swapped": "bce_weight and dice_weight are swapped.",
    "logits": "BCEWithLogitsLoss applies a sigmoid to what are probabilities already; use BCELoss.",
    "sum": "the cross-entropy is summed over the pixels; take their mean.",
    "bce alone": "the Dice loss is not added.",
    "dice alone": "the cross-entropy is not added.",
}


class LinearProbe:
    """Softmax regression on [N, 3, 28, 28], as worker.LinearProbe."""

    names, shapes, spread = ("layer.weight", "layer.bias"), ((9, 2352), (9,)), 0.05

    def __init__(self, state: dict[str, Array]):
        self.weight, self.bias = (state[name].astype(np.float64) for name in self.names)

    def answer(self, images: Array, shift: float = 0.0) -> Array:
        """Logits [N, 9]; the first one moved by `shift` (worker.ModeProbe)."""
        logits = images.reshape(len(images), -1).astype(np.float64) @ self.weight.T + self.bias
        logits[:, 0] += shift
        return logits

    @staticmethod
    def loss(answer: Array, targets: Array, mistake: str | None = None) -> float:
        return cross_entropy(answer, targets, mistake)

    @staticmethod
    def metric(answer: Array, targets: Array, mistake: str | None = None) -> float:
        """Accuracy. Mistake: "broadcast" (every prediction is compared with every label)."""
        right = answer.argmax(axis=1)[:, None] == targets
        return float((right.sum(axis=1) if mistake == "broadcast" else right.diagonal()).mean())

    def gradients(self, images: Array, targets: Array, mistake: str | None) -> list[Array]:
        x, n = images.reshape(len(images), -1).astype(np.float64), len(images)
        p = softmax(self.answer(images))
        one_hot = np.eye(9)[targets]
        if mistake == "softmax":
            back = (softmax(p) - one_hot) / n
            back = p * (back - (back * p).sum(axis=1, keepdims=True))
        else:
            back = (p - one_hot) / n
        return [back.T @ x, back.sum(axis=0)]


class MaskProbe:
    """Logistic regression on the channels of each pixel, as worker.MaskProbe."""

    names, shapes, spread = ("layer.weight", "layer.bias"), ((1, 3, 1, 1), (1,)), 1.0

    def __init__(self, state: dict[str, Array]):
        self.weight, self.bias = (state[name].astype(np.float64) for name in self.names)

    def answer(self, images: Array, shift: float = 0.0) -> Array:
        """Probabilities [N, 1, 28, 28], moved towards 1 by a share of shift / 4 of the way."""
        logits = np.tensordot(images.astype(np.float64), self.weight[0, :, 0, 0], axes=(1, 0))
        p = 1 / (1 + np.exp(-(logits + self.bias)))[:, None]
        return p + (1 - p) * shift / 4

    @staticmethod
    def loss(answer: Array, targets: Array, mistake: str | None = None) -> float:
        """Mistake: "softmax", here a sigmoid of what are probabilities already."""
        return bce(answer, targets, "logits" if mistake == "softmax" else None)

    @staticmethod
    def metric(answer: Array, targets: Array, mistake: str | None = None) -> float:
        """IoU. Mistakes: IOU_MISTAKES."""
        return iou(answer, targets, 0.5, mistake)

    def gradients(self, images: Array, targets: Array, mistake: str | None) -> list[Array]:
        p = self.answer(images)
        back = (p - targets) / targets.size
        if mistake == "softmax":
            back = (1 / (1 + np.exp(-p)) - targets) / targets.size * p * (1 - p)
        weight = np.einsum("nihw,nchw->ic", back, images.astype(np.float64))
        return [weight.reshape(1, 3, 1, 1), back.sum().reshape(1)]


def train(
    probe: LinearProbe | MaskProbe,
    batches: list[tuple[Array, Array]],
    learning_rate: float,
    leftover: float = 0.0,
    mistake: str | None = None,
) -> list[Array]:
    """Plain gradient descent on all batches in turn; the answers before each step.

    The probe's weights change in place. leftover: what every gradient holds before. Mistakes are
    those of TRAIN_MISTAKES, and "zero_grad last" (after each step), which is not one.
    """
    parameters = [probe.weight, probe.bias]
    held = [np.full_like(p, leftover) for p in parameters]
    never = ("no zero_grad", "no backward", "zero_grad last")
    answers = []
    for number, (images, targets) in enumerate(batches):
        answers.append(probe.answer(images))
        fresh = probe.gradients(images, targets, mistake)
        if mistake == "step before backward":
            step, held = held, fresh
        else:
            if mistake not in never and not (mistake == "zero_grad once" and number):
                held = [np.zeros_like(p) for p in parameters]
            if mistake != "no backward":
                held = [h + g for h, g in zip(held, fresh, strict=True)]
            step = held
        if mistake != "no step":
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter -= learning_rate * gradient
        if mistake == "zero_grad last":
            held = [np.zeros_like(p) for p in parameters]
    return answers


TRAIN_MISTAKES = {
    "no zero_grad": "the gradients are never set to zero: call optimizer.zero_grad() each step.",
    "zero_grad once": "the gradients are set to zero once; call optimizer.zero_grad() each step.",
    "no backward": "loss.backward() is missing.",
    "no step": "optimizer.step() is missing, or stands before loss.backward(): the weights did not "
    "change.",
    "step before backward": "optimizer.step() comes before loss.backward().",
    "softmax": "a softmax is applied before the criterion, which applies one itself.",
}
