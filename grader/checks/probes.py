"""Models so small that NumPy can train them too, as training_operations.py has them as Probe."""

import numpy as np

from grader.checks import reference
from grader.checks.causes import MISTAKES
from grader.checks.reference import Array
from grader.checks.student import Batch, State
from grader.checks.tasks import Task

CLASSES = 9  # of the linear probe; any number would do


class LinearProbe:
    """Softmax regression on images [N, 3, 28, 28]."""

    shapes: tuple[tuple[int, ...], ...] = ((CLASSES, 2352), (CLASSES,))
    spread = 0.05  # standard deviation of random weights
    metric_mistakes: tuple[str, ...] = ("broadcast",)
    foreign_mistakes: tuple[str, ...] = ()

    def __init__(self, state: State):
        self.weight = state["layer.weight"].astype(np.float64)
        self.bias = state["layer.bias"].astype(np.float64)

    def output(self, images: Array, shift: float = 0.0) -> Array:
        """Logits [N, CLASSES]; the first one raised by `shift`."""
        logits = images.reshape(len(images), -1).astype(np.float64) @ self.weight.T + self.bias
        logits[:, 0] += shift
        return logits

    @staticmethod
    def loss(output: Array, targets: Array, mistake: str | None = None) -> float:
        """Cross-entropy."""
        return reference.cross_entropy(output, targets, mistake)

    @staticmethod
    def metric(output: Array, targets: Array, mistake: str | None = None) -> float:
        """Accuracy. Mistake: "broadcast" (every prediction is compared with every label)."""
        right = output.argmax(axis=1)[:, None] == targets
        return float((right.sum(axis=1) if mistake == "broadcast" else right.diagonal()).mean())

    def gradients(self, images: Array, targets: Array, mistake: str | None) -> list[Array]:
        """Of the loss, for weight and bias."""
        x, n = images.reshape(len(images), -1).astype(np.float64), len(images)
        p, one_hot = reference.softmax(self.output(images)), np.eye(CLASSES)[targets]
        back = (p - one_hot) / n
        if mistake == "softmax":
            back = (reference.softmax(p) - one_hot) / n
            back = p * (back - (back * p).sum(axis=1, keepdims=True))
        return [back.T @ x, back.sum(axis=0)]

    @staticmethod
    def draw(rng: np.random.Generator, images: Array) -> Array:
        """Labels 1 to 8. Class 0 is nobody's, so that raising its logit raises the loss."""
        return rng.integers(1, CLASSES, len(images))


class MaskProbe(LinearProbe):
    """Logistic regression on the channels of each pixel."""

    shapes = ((1, 3, 1, 1), (1,))
    spread = 1.0
    metric_mistakes = ()
    foreign_mistakes = tuple(MISTAKES["iou"])  # these cost the points of calculate_iou alone

    def output(self, images: Array, shift: float = 0.0) -> Array:
        """Probabilities [N, 1, 28, 28], moved towards 1 by a share of shift / 4 of the way."""
        logits = np.tensordot(images.astype(np.float64), self.weight[0, :, 0, 0], axes=(1, 0))
        p = 1 / (1 + np.exp(-(logits + self.bias)))[:, None]
        return p + (1 - p) * shift / 4

    @staticmethod
    def loss(output: Array, targets: Array, mistake: str | None = None) -> float:
        """Binary cross-entropy. Mistake: "softmax", here a sigmoid of what are probabilities."""
        return reference.bce(output, targets, "logits" if mistake == "softmax" else None)

    @staticmethod
    def metric(output: Array, targets: Array, mistake: str | None = None) -> float:
        """IoU. Mistakes: [mistakes.iou] of causes.toml."""
        return reference.iou(output, targets, 0.5, mistake)

    def gradients(self, images: Array, targets: Array, mistake: str | None) -> list[Array]:
        """Of the loss, for weight and bias."""
        p = self.output(images)
        back = (p - targets) / targets.size
        if mistake == "softmax":
            back = (1 / (1 + np.exp(-p)) - targets) / targets.size * p * (1 - p)
        weight = np.einsum("nihw,nchw->ic", back, images.astype(np.float64))
        return [weight.reshape(1, 3, 1, 1), back.sum().reshape(1)]

    @staticmethod
    def draw(rng: np.random.Generator, images: Array) -> Array:
        """Masks of very different sizes; most pixels belong to none."""
        limit = rng.uniform(0, 0.4) * rng.uniform(0.5, 1.5, (len(images), 1, 1, 1))
        return (images.mean(axis=1, keepdims=True) > limit).astype(np.float32)


def probe_of(task: Task) -> type[LinearProbe]:
    """The probe that has this task's kind of output."""
    return MaskProbe if task.is_mask else LinearProbe


def draw_state(rng: np.random.Generator, task: Task) -> State:
    """Random weights for the task's probe."""
    probe = probe_of(task)
    weight, bias = (rng.normal(0, probe.spread, s).astype(np.float32) for s in probe.shapes)
    return {"layer.weight": weight, "layer.bias": bias}


def draw_batches(rng: np.random.Generator, task: Task, *sizes: int) -> list[Batch]:
    """Batches of noise, with targets of the task."""
    images = [rng.uniform(-1, 1, (n, 3, 28, 28)).astype(np.float32) for n in sizes]
    return [(x, probe_of(task).draw(rng, x)) for x in images]


def descend(
    probe: LinearProbe,
    batches: list[Batch],
    learning_rate: float,
    leftover: float = 0.0,
    mistake: str | None = None,
) -> tuple[State, list[Array]]:
    """Plain gradient descent on all batches in turn: the weights after it, the outputs on the way.

    leftover: what every gradient holds before. Mistakes are [mistakes.training] of causes.toml, and
    "zero_grad last" (after each step), which is not one.
    """
    parameters = [probe.weight, probe.bias]
    sums = [np.full_like(p, leftover) for p in parameters]
    never = ("no zero_grad", "no backward", "zero_grad last")
    outputs = []
    for number, (images, targets) in enumerate(batches):
        outputs.append(probe.output(images))
        new = probe.gradients(images, targets, mistake)
        if mistake == "step before backward":
            step, sums = sums, new
        else:
            if mistake not in never and not (mistake == "zero_grad once" and number):
                sums = [np.zeros_like(p) for p in parameters]
            if mistake != "no backward":
                sums = [s + g for s, g in zip(sums, new, strict=True)]
            step = sums
        if mistake != "no step":
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter -= learning_rate * gradient
        if mistake == "zero_grad last":
            sums = [np.zeros_like(p) for p in parameters]
    return {"layer.weight": probe.weight, "layer.bias": probe.bias}, outputs


def same(found: State, right: State) -> bool:
    """Whether these are the same weights, but for rounding."""
    return all(
        n in found and found[n].shape == a.shape and np.allclose(found[n], a, atol=1e-4, rtol=1e-4)
        for n, a in right.items()
    )
