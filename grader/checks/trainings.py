"""Checks of whole trainings: of a probe, of 100 steps, and of evaluation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autograde.assignment import GradedTest
from autograde.feedback import Lost
from autograde.student import Session
from grader.checks import reference
from grader.checks.averages import apart, close
from grader.checks.causes import MISTAKES
from grader.checks.probes import draw_batches, draw_state, probe_of, same
from grader.checks.student import Array, Batch, BatchServer, Model, State, Student

EPOCHS, STEPS, IN_LOADER = 5, 4, 6  # of the probe's training
History = dict[str, list[float]]


# ---- train_model ----


def check_train_model(student: Student) -> None:
    """The history's shape; the given model has learned, in the steps and at the rate asked for."""
    task = student.task
    zeros = {name: np.zeros_like(a) for name, a in draw_state(student.rng, task).items()}
    train = draw_batches(student.rng, task, *(8,) * IN_LOADER)
    if task.is_mask:
        train = [(x, (x[:, :1] > 0).astype(np.float32)) for x, _ in train]
    rate = 0.5 if task.is_mask else 0.01
    history, after, taken = _train(student, zeros, train, EPOCHS, rate)
    _check_history(student, history)
    _check_trained(after, zeros)
    _check_steps(taken)
    _check_learned(student, after, train, rate)
    _check_learning_rate(student, zeros, train)
    _check_weight_decay(student, zeros, train, rate)


def _train(
    student: Student,
    state: State,
    train: list[Batch],
    epochs: int,
    rate: float,
    decay: float = 0.0,
) -> tuple[History, State, int]:
    """(history, weights after, training batches taken) of the submission's training."""
    model = student.build_probe(state)
    batches = BatchServer(train=train, val=train[:3])
    lists = _lists(student)
    history, device = model.train_model(batches, lists, epochs, rate, decay, STEPS)
    if device != "cpu":
        raise Lost(
            "the model on the device that it came on",
            f"it is on {device[:20]}",
            "the model is moved to another device; keep next(model.parameters()).device.",
        )
    return history, model.state(), sum(split == "train" for split, _ in batches.taken)


def _lists(student: Student) -> tuple[str, ...]:
    metric = student.task.metric
    return ("train_loss", f"train_{metric}", "val_loss", f"val_{metric}")


def _check_history(student: Student, history: History) -> None:
    for name in _lists(student):
        expected = f"history[{name!r}] with one entry for each of {EPOCHS} epochs"
        if name not in history:
            raise Lost(expected, "no such list", f"the history has no list {name!r}.")
        if len(history[name]) != EPOCHS:
            cause = "append once in every epoch, after it was trained and validated."
            raise Lost(expected, len(history[name]), cause)


def _check_trained(after: State, before: State) -> None:
    if same(after, before):
        raise Lost(
            "the model that train_model was given to be trained",
            "its weights did not change",
            "a copy is trained, or the optimizer has the parameters of another model.",
        )


def _check_steps(taken: int) -> None:
    if taken > EPOCHS * (STEPS + 1):
        raise Lost(
            f"{EPOCHS} epochs of {STEPS} steps (max_steps_per_epoch)",
            f"{taken} batches were taken from the loader of {IN_LOADER}",
            "max_steps_per_epoch does not reach the training epoch, or is ignored there.",
        )


def _check_learned(student: Student, after: State, train: list[Batch], rate: float) -> None:
    probe = probe_of(student.task)(after)
    score = np.mean([probe.metric(probe.output(x), y) for x, y in train[:STEPS]])
    if score < 0.8:
        raise Lost(
            f"{8 * STEPS} images to be overfitted in {EPOCHS} epochs of {STEPS} steps at learning "
            f"rate {rate}: {student.task.metric} above 0.8",
            f"{score:.2f}",
            "fewer steps, or other settings, than were asked for.",
        )


def _check_learning_rate(student: Student, zeros: State, train: list[Batch]) -> None:
    _, after, _ = _train(student, zeros, train, 1, 1e-7)
    if max(float(np.abs(after[name]).max()) for name in zeros) > 1e-5:
        raise Lost(
            "hardly any change of the weights at learning rate 1e-7",
            "weights that changed by much more",
            "learning_rate is ignored.",
        )


def _check_weight_decay(student: Student, zeros: State, train: list[Batch], rate: float) -> None:
    ones = {name: a + 1 for name, a in zeros.items()}
    plain, decayed = (_train(student, ones, train, 1, rate, decay)[1] for decay in (0.0, 0.5))
    if same(plain, decayed):
        expected = "other weights with weight_decay=0.5 than with 0"
        raise Lost(expected, "the same", "weight_decay is ignored.")


# ---- evaluate_segmentation_model ----


def check_evaluation(student: Student) -> None:
    """Mean and deviation of single images' IoU, over batches of different sizes."""
    probe, sizes = probe_of(student.task), (8, 8, 3)
    while True:
        state = draw_state(student.rng, student.task)
        batches = draw_batches(student.rng, student.task, *sizes)
        pairs = [(probe(state).output(x), y) for x, y in batches]
        whole = [reference.iou(p, y) for p, y in pairs]
        single = _ious(pairs)
        mean, deviation = float(np.mean(single)), float(np.std(single))
        if apart(mean, float(np.mean(whole))) and apart(deviation, float(np.std(whole))):
            break
    model = student.build_probe(state)
    found, spread, total = model.evaluate(BatchServer(test=batches), "evaluate_segmentation_model")
    # A wrong calculate_iou costs its own points, and not these.
    accepted = [single, *(_ious(pairs, mistake) for mistake in MISTAKES["iou"])]
    if not any(close(found, float(np.mean(ious))) for ious in accepted):
        by_batch = close(found, float(np.mean(whole)))
        cause = "average over the images, not over batches of different sizes." if by_batch else ""
        raise Lost(f"mean_iou {mean:.4f}", f"{found:.4f}", cause)
    if not any(_is_deviation(spread, ious) for ious in accepted):
        cause = "the deviation is taken over batches, not over single images' IoU."
        cause = cause if _is_deviation(spread, whole) else ""
        raise Lost(f"std_iou {deviation:.4f}", f"{spread:.4f}", cause)
    if total != sum(sizes):
        cause = "count images, not batches." if total == len(sizes) else ""
        raise Lost(f"total_samples {sum(sizes)}", f"{total:g}", cause)


def _ious(pairs: list[Batch], mistake: str | None = None) -> list[float]:
    """Of each image by itself. pairs: predictions and masks of batches."""
    images = [(p, m) for predicted, true in pairs for p, m in zip(predicted, true, strict=True)]
    return [reference.iou(p[None], m[None], mistake=mistake) for p, m in images]


def _is_deviation(spread: float, values: list[float]) -> bool:
    return any(close(spread, float(np.std(values, ddof=ddof))) for ddof in (0, 1))


# ---- 100 steps ----


@dataclass(frozen=True)
class Schedule:
    """[trainings] of assignment.toml. scored_images: that a trained model is scored on."""

    count: int
    steps: int
    batch_size: int
    scored_images: int
    cpu_seconds: float

    @property
    def images(self) -> int:
        """That one training gets."""
        return self.steps * self.batch_size

    def train(self, model: Model, images: Array, targets: Array) -> None:
        """Train by the submission's own epoch function: so many batches and no more, Adam."""
        starts = range(0, self.images, self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        batches = BatchServer(train=[(images[part], targets[part]) for part in parts])
        model.train_steps(batches, self.steps)

    def best_of(self, session: Session, target: GradedTest, run: Callable[[], float]) -> None:
        """Points for the best score of so many trainings; the first that reaches the threshold
        ends it.

        Each has a worker of its own: nothing is left of an earlier one, and what it takes of the
        processor is bounded, from the import of the modules to the last output.
        """
        scores: list[float] = []
        for _ in range(self.count):
            with session.fresh(self.cpu_seconds):
                scores.append(run())
            if target.fraction(scores[-1]) == 1:
                return
        raise Lost(
            f"{target.title}, of batch {self.batch_size}, in one of {self.count} trainings",
            ", ".join(f"{score:.3f}" for score in scores),
            "try a larger network, batch norm, or check that the input reaches every layer.",
            fraction=target.fraction(max(scores)),
        )


def check_untrained(score: float, most: float, unit: str) -> None:
    """A new model is near chance: only checkpoints/ may hold trained weights."""
    if score > most:
        raise Lost(
            f"an untrained model near chance, {unit} below {most:.2f}",
            f"{score:.2f} before any training",
            "weights are in the source; only checkpoints/ may hold trained weights.",
        )
