"""Checks of scores and losses on random masks, against NumPy."""

import math
from collections.abc import Callable

import numpy as np

from autograde.feedback import Lost
from grader.checks.averages import apart, close
from grader.checks.causes import MISTAKES
from grader.checks.student import Array, Student

TOLERANCE = 1e-4
Right = Callable[..., float]


def draw_masks(rng: np.random.Generator, n: int = 4) -> tuple[Array, Array]:
    """Probabilities and true masks [n, 1, 28, 28] of very different sizes. In the first image both
    are nearly empty, in the second the truth is empty and the prediction is not."""
    predicted = rng.random((n, 1, 28, 28)).astype(np.float32)
    true = (rng.random((n, 1, 28, 28)) > rng.uniform(0.3, 0.97, (n, 1, 1, 1))).astype(np.float32)
    predicted[0], true[0], true[1] = predicted[0] * 0.01, 0, 0
    return predicted, true


class Question:
    """Random masks for which a right function and its known mistakes give different numbers.

    right: f(predicted, true, mistake=None); kind: which of MISTAKES it knows.
    """

    def __init__(self, student: Student, name: str, kind: str, right: Right):
        self.name, self.mistakes = name, MISTAKES[kind]
        while True:
            self.predicted, self.true = masks = draw_masks(student.rng)
            self.expected = right(*masks)
            self.wrong = {m: right(*masks, mistake=m) for m in self.mistakes}
            # Equal are only those that must be, such as swapped weights of 0.5 and 0.5.
            if all(
                n == self.expected or apart(self.expected, n, TOLERANCE)
                for n in self.wrong.values()
            ):
                break
        # Those of the Dice loss cost its own points, and none here.
        foreign = [f"dice: {mistake}" for mistake in MISTAKES["dice"]] if kind == "combined" else []
        self.accepted = [right(*masks, mistake=mistake) for mistake in foreign]

    def check(self, value: float) -> None:
        """Lost, with the mistake that gives this value, if it is not the right one."""
        if any(close(value, number, TOLERANCE) for number in (self.expected, *self.accepted)):
            return
        named = [m for m, number in self.wrong.items() if close(value, number, TOLERANCE)]
        cause = self.mistakes[named[0]] if named else ""
        if math.isnan(value):
            cause = "0 / 0: " + self.mistakes.get("empty", self.mistakes.get("no smooth", ""))
        raise Lost(f"{self.name} of four random masks: {self.expected:.5f}", f"{value:.5f}", cause)


def check_score(student: Student, name: str, kind: str, right: Right, **options: float) -> None:
    """A function of the submission, against the right one."""
    question = Question(student, name, kind, right)
    question.check(student.score(name, question.predicted, question.true, **options))


def check_loss(student: Student, name: str, kind: str, right: Right, **options: float) -> None:
    """A loss of the submission, against the right one; it has a gradient."""
    question = Question(student, name, kind, right)
    value, gradient = student.loss(name, question.predicted, question.true, **options)
    question.check(value)
    if not np.any(gradient):
        raise Lost(
            f"{name} to have a gradient", "none", "a threshold or .item() inside cuts it off."
        )
