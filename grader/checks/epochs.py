"""Checks of one epoch of training or validation, on a probe that NumPy can train too."""

import numpy as np

from autograde.feedback import Lost
from grader.checks.averages import Scores, apart, check_means, close
from grader.checks.causes import MISTAKES
from grader.checks.probes import (
    LinearProbe,
    descend,
    draw_batches,
    draw_state,
    probe_of,
    same,
)
from grader.checks.student import Array, Batch, BatchServer, Means, Model, State, Student

RATE, LEFTOVER = 0.05, 0.5  # learning rate of the grader's optimizer; every gradient's first value
TRAINING, RECORDING = 1.0, 2.0  # what a probe adds in training mode, and with gradients


class Descent:
    """What plain gradient descent from these weights gives, by NumPy."""

    def __init__(self, probe: type[LinearProbe], state: State, batches: list[Batch]):
        self.probe, self.state, self.batches = probe, state, batches

    def after(
        self, mistake: str | None = None, steps: int | None = None, leftover: float = 0.0
    ) -> State:
        """The weights after so many steps, all by default."""
        return self.run(mistake, steps, leftover)[0]

    def run(
        self, mistake: str | None = None, steps: int | None = None, leftover: float = 0.0
    ) -> tuple[State, list[Array]]:
        """`after`, with the outputs on the way."""
        return descend(self.probe(self.state), self.batches[:steps], RATE, leftover, mistake)

    def scores(self, outputs: list[Array], mistake: str | None = None) -> Scores:
        """Of these outputs on the way."""
        return Scores.of(self.probe, outputs, self.batches, mistake)


def check_training_epoch(student: Student) -> None:
    """One epoch of plain gradient descent from random weights, against the same in NumPy."""
    task, probe = student.task, probe_of(student.task)
    while True:
        state = draw_state(student.rng, task)
        descent = Descent(probe, state, draw_batches(student.rng, task, 8, 8, 3))
        weights, outputs = descent.run(leftover=LEFTOVER)
        wrong = [descent.after(mistake, leftover=LEFTOVER) for mistake in MISTAKES["training"]]
        wrong += [descent.after(steps=steps, leftover=LEFTOVER) for steps in (1, 2)]
        if descent.scores(outputs).is_telling and not any(same(w, weights) for w in wrong):
            break
    model = student.build_probe(state)
    found = model.train_epoch(BatchServer(train=descent.batches), RATE, leftover=LEFTOVER)
    after = model.state()
    for order in (None, "zero_grad last"):  # both are right
        weights, outputs = descent.run(order, leftover=LEFTOVER)
        if same(after, weights):
            check_means(found, probe, task.metric, lambda m: descent.scores(outputs, m))  # noqa: B023
            return
    raise Lost(
        f"after {len(descent.batches)} steps of gradient descent, the weights that NumPy finds",
        "other weights",
        _training_cause(student, model, descent, after, found),
    )


def _training_cause(
    student: Student, model: Model, descent: Descent, after: State, found: Means
) -> str:
    """The mistake that gives just these weights. Where several leave them as they are, the worker's
    word decides: the gradients that are left, and how often backward() was called."""
    for mistake, words in MISTAKES["training"].items():
        if same(after, descent.after(mistake, leftover=LEFTOVER)):
            if mistake == "softmax" and student.task.is_mask:
                return (
                    "a sigmoid is applied before the criterion to what are probabilities already."
                )
            if mistake == "no step" and found.backwards == 0:
                return MISTAKES["training"]["no backward"]
            if mistake == "no step" and not any(np.any(a) for a in model.gradients().values()):
                return "zero_grad() comes between backward() and step(): nothing is left to step."
            return words
    for steps in range(1, len(descent.batches)):
        if same(after, descent.after(steps=steps, leftover=LEFTOVER)):
            return f"only {steps} of {len(descent.batches)} batches were trained on."
    return _scaled_gradient(student, descent) or (
        "the order is: zero_grad, forward, loss, backward, step."
    )


def _scaled_gradient(student: Student, descent: Descent) -> str:
    """What to say where the submission's step on one batch has the right direction and another
    length; else ""."""
    model, state = student.build_probe(descent.state), descent.state
    model.train_epoch(BatchServer(train=descent.batches[:1]), RATE)
    after, right = model.state(), descent.after(steps=1)
    if any(n not in after or after[n].shape != state[n].shape for n in state):
        return ""
    found, wanted = (
        np.concatenate([(s[n] - state[n]).ravel().astype(np.float64) for n in state])
        for s in (after, right)
    )
    length = np.linalg.norm(found) / np.linalg.norm(wanted)
    cosine = found @ wanted / (np.linalg.norm(found) * np.linalg.norm(wanted) + 1e-30)
    if not cosine > 0.999 or abs(length - 1) < 0.01:  # NaN has no direction
        return ""
    return (
        f"the gradient has the right direction and {length:.2g} times the right length: it is "
        "clipped (clip_grad_norm_), or the loss is scaled before backward(). Leave both out."
    )


def check_max_steps(student: Student) -> None:
    """max_steps batches are taken from the loader and trained on, no more and no less, and the
    means are over these."""
    for wanted in (3, 1):
        state = draw_state(student.rng, student.task)
        batches = draw_batches(student.rng, student.task, 8, 8, 8, 8, 8, 3)
        descent = Descent(probe_of(student.task), state, batches)
        model, server = student.build_probe(state), BatchServer(train=batches)
        found, taken = model.train_epoch(server, RATE, max_steps=wanted), len(server.taken)
        after = model.state()
        outputs = _outputs_after(descent, after, wanted)
        if outputs is None or taken not in (wanted, wanted + 1):
            tried = range(len(batches) + 1)
            steps = next((n for n in tried if _outputs_after(descent, after, n) is not None), None)
            raise Lost(
                f"with max_steps={wanted}, training on the first {wanted} batches",
                f"{taken} batches taken from the loader, and weights "
                + ("of another training" if steps is None else f"after {steps} steps"),
                _steps_cause(steps, wanted, len(batches)) or _scaled_gradient(student, descent),
            )
        scores = descent.scores(outputs)
        for value, values in ((found.loss, scores.losses), (found.metric, scores.metrics)):
            for mistake, number in scores.wrong_length(values, batches).items():
                if close(value, number) and apart(float(np.mean(values)), number):
                    raise Lost(
                        f"with max_steps={wanted}, the means over the {8 * wanted} images seen",
                        f"loss {found.loss:.4f} and {student.task.metric} {found.metric:.4f}",
                        MISTAKES["average"][mistake],
                    )


def _outputs_after(descent: Descent, after: State, steps: int) -> list[Array] | None:
    """The outputs on the way, if these are the weights after so many steps. Mistakes that cost
    their own points elsewhere, and still train step by step, do not count here."""
    for order in (None, "zero_grad last", "no zero_grad", "zero_grad once", "softmax"):
        weights, outputs = descent.run(order, steps)
        if same(after, weights):
            return outputs
    return None


def _steps_cause(steps: int | None, wanted: int, batches: int) -> str:
    if steps == wanted:
        return "stop with `break`; what follows in the loader need not be loaded."
    if steps == batches:
        return "max_steps is ignored: stop when as many batches were trained on."
    if steps == wanted + 1:
        return (
            "one step too many: counted from 0, step max_steps is the first that must not be "
            "trained on; compare with >=, before training."
        )
    if steps == wanted - 1:
        return "one step too few: counted from 0, the last step is max_steps - 1."
    if steps == 0:
        return "the weights did not change at all."
    return ""


def check_validation(student: Student) -> None:
    """The means over all images; evaluation mode; no gradients recorded; nothing changed.

    The probe's output is another one in training mode and where gradients are recorded.
    """
    probe = probe_of(student.task)

    def scores(shift: float, mistake: str | None = None) -> Scores:
        outputs = [probe(state).output(x, shift) for x, _ in batches]
        return Scores.of(probe, outputs, batches, mistake)

    causes = {
        TRAINING: "the model is in training mode: call model.eval() first.",
        RECORDING: "gradients are recorded: use torch.no_grad().",
        TRAINING + RECORDING: "the model is in training mode and gradients are recorded: call "
        "model.eval() and use torch.no_grad().",
    }
    while True:
        state = draw_state(student.rng, student.task)
        batches = draw_batches(student.rng, student.task, 8, 8, 3)
        right, *wrong = (scores(shift).right.loss for shift in (0.0, *causes))
        neighbours = zip(wrong, [right, *wrong], strict=False)
        if scores(0.0).is_telling and all(apart(*losses) for losses in neighbours):
            break
    modes = {"bias": np.array([TRAINING, RECORDING], np.float32), "seen": np.zeros(1, np.float32)}
    model, server = student.build_probe(state | modes, modes=True), BatchServer(val=batches)
    found, after = model.validate_epoch(server), model.state()
    for loss, words in zip(wrong, causes.values(), strict=True):
        if close(found.loss, loss):
            expected = f"a loss of {right:.4f}, in evaluation mode and without gradients"
            raise Lost(expected, f"{found.loss:.4f}", words)
    changed = [n for n, a in (state | modes).items() if not np.array_equal(after.get(n, ()), a)]
    if changed:
        raise Lost(
            "weights and buffers as they were before validation",
            f"{', '.join(changed)} changed",
            "validation must be in evaluation mode and must not call backward() or step().",
        )
    if len(set(server.taken)) != len(batches):
        raise Lost(
            f"means over all {len(batches)} batches",
            f"only {len(set(server.taken))} were taken from the loader",
            "validation must use every batch.",
        )
    check_means(found, probe, student.task.metric, lambda mistake: scores(0.0, mistake))
