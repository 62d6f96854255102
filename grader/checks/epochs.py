"""Checks of training loops on a probe: a model so small that NumPy can train it too."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autograde.feedback import Lost
from autograde.student import Session
from grader.checks import reference
from grader.checks.averages import Scores, apart, close, is_telling, short
from grader.checks.models import noise, own_batches

RATE, LEFTOVER = 0.05, 0.5  # learning rate of the grader's optimizer; every gradient's first value
TRAINING, RECORDING = 1.0, 2.0  # what worker.ModeProbe adds in training mode, and with gradients
Batches = list[tuple[np.ndarray, np.ndarray]]


def labelled(rng: np.random.Generator, sizes: tuple[int, ...]) -> Batches:
    """Noise with labels 1 to 8. Class 0 is nobody's, so that raising its logit raises the loss."""
    return [(noise(rng, n), rng.integers(1, 9, n)) for n in sizes]


def masked(rng: np.random.Generator, sizes: tuple[int, ...]) -> Batches:
    """Noise with masks of very different sizes; most pixels belong to none."""
    batches = []
    for n in sizes:
        images = noise(rng, n)
        limit = rng.uniform(0, 0.4) * rng.uniform(0.5, 1.5, (n, 1, 1, 1))
        batches.append((images, (images.mean(axis=1, keepdims=True) > limit).astype(np.float32)))
    return batches


@dataclass(frozen=True)
class Task:
    """What differs between the parts."""

    module: str
    train_epoch: str
    validate_epoch: str
    train_model: str
    metric: str
    is_mask: bool
    kind: str  # of the worker's probe
    make: type[reference.LinearProbe] | type[reference.MaskProbe]
    criterion: str
    long_criterion: str  # of 100 steps, where it decides how good the model gets
    data: Callable[[np.random.Generator, tuple[int, ...]], Batches]
    metric_mistakes: dict[str, str]

    def train(self, student: Session, batches: Batches, taken: list, **args) -> list:
        """Run a training epoch of the submission; the loss and the metric that it claims, and the
        calls of backward(). taken: receives the numbers of the batches that it took."""
        request = {"name": self.train_epoch, "training": True, "max_steps": None}
        request |= {"optimizer": "sgd", "learning_rate": RATE}
        return self._epoch(student, batches, taken, **{**request, **args})

    def validate(self, student: Session, batches: Batches, taken: list) -> list:
        return self._epoch(student, batches, taken, name=self.validate_epoch, training=False)

    def _epoch(
        self, student: Session, batches: Batches, taken: list, seconds: float = 60, **args
    ) -> list:
        images = sum(len(b[0]) for b in batches)
        request = {"module": self.module, "handle": "probe", "is_mask": self.is_mask}
        request |= {"criterion": self.criterion, "batches": len(batches), "images": images, **args}
        handed = own_batches(batches, taken)
        answer, _ = student.ask("epoch", request, batches=handed, seconds=seconds)
        return answer


CLASSIFICATION = Task(
    module="classification_train",
    train_epoch="train_epoch",
    validate_epoch="validate_epoch",
    train_model="train_model",
    metric="acc",
    is_mask=False,
    kind="linear",
    make=reference.LinearProbe,
    criterion="cross entropy",
    long_criterion="cross entropy",
    data=labelled,
    metric_mistakes={
        "broadcast": "every prediction is compared with every label: labels have one dimension "
        "too many; squeeze it away, to [B]."
    },
)
SEGMENTATION = Task(
    module="segmentation_train",
    train_epoch="train_segmentation_epoch",
    validate_epoch="validate_segmentation_epoch",
    train_model="train_segmentation_model",
    metric="iou",
    is_mask=True,
    kind="mask",
    make=reference.MaskProbe,
    criterion="bce",
    long_criterion="combined",
    data=masked,
    metric_mistakes={},
)


# ---- averages ----


def scores_of(task: Task, answers, batches: Batches, loader: Batches, mistake=None) -> Scores:
    """From the probe's answers. mistake: one of the task's metric_mistakes."""
    probe = task.make
    pairs = [(a, y) for a, (_, y) in zip(answers, batches, strict=False)]
    return Scores(
        [probe.loss(a, y) for a, y in pairs],
        [probe.metric(a, y, mistake) for a, y in pairs],
        [len(y) for _, y in pairs],
        sum(len(y) for _, y in loader),
        len(loader),
    )


def _check_means(task: Task, found: list, by_mistake: Callable[[str | None], Scores]) -> None:
    """The claimed means against the right ones. by_mistake: the scores with a metric mistake."""
    scores = by_mistake(None)
    right, total = scores.right, sum(scores.sizes)
    other = [by_mistake(m).right[1] for m in reference.IOU_MISTAKES] if task.is_mask else []
    # A wrong calculate_iou costs its own points, and not these.
    metric_is_right = any(close(found[1], value) for value in (right[1], *other))
    if close(found[0], right[0]) and metric_is_right:
        return
    causes = {}
    if not close(found[0], right[0]):
        causes["loss"] = (found[0], scores.wrong(scores.losses))
    if not metric_is_right:
        wrong = scores.wrong_metric()
        wrong |= {words: by_mistake(m).right[1] for m, words in task.metric_mistakes.items()}
        causes[task.metric] = (found[1], wrong)
    named = [
        f"{name}: " + next((words for words, number in wrong.items() if close(value, number)), "")
        for name, (value, wrong) in causes.items()
    ]
    raise Lost(
        f"loss {right[0]:.4f} and {task.metric} {right[1]:.4f}, means over the {total} images seen",
        f"loss {short(found[0])} and {task.metric} {short(found[1])}",
        " ".join(words for words in named if not words.endswith(": ")),
    )


# ---- training epochs ----


def drawn(rng: np.random.Generator, task: Task) -> dict[str, np.ndarray]:
    pairs = zip(task.make.names, task.make.shapes, strict=True)
    return {n: rng.normal(0, task.make.spread, s).astype(np.float32) for n, s in pairs}


def probe_with(student: Session, task: Task, state: dict[str, np.ndarray], mode: str = "") -> None:
    """Make the worker's probe "probe", with weights that were drawn here."""
    student.ask("build", {"probe": task.kind + mode, "seed": 0, "handle": "probe"})
    student.ask("set_state", {"handle": "probe"}, state)


def _after(task: Task, state, batches: Batches, mistake: str | None, leftover: float = LEFTOVER):
    """(weights after training, answers on the way), by NumPy."""
    probe = task.make(state)
    answers = reference.train(probe, batches, RATE, leftover, mistake)
    return dict(zip(task.make.names, (probe.weight, probe.bias), strict=True)), answers


def same(found: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return all(
        n in found and found[n].shape == a.shape and np.allclose(found[n], a, atol=1e-4, rtol=1e-4)
        for n, a in right.items()
    )


def check_training_epoch(student: Session, rng: np.random.Generator, task: Task) -> None:
    """One epoch of plain gradient descent from random weights, against the same in NumPy."""
    while True:
        state, batches = drawn(rng, task), task.data(rng, (8, 8, 3))
        weights, answers = _after(task, state, batches, None)
        scores = scores_of(task, answers, batches, batches)
        wrong = [_after(task, state, batches, m)[0] for m in reference.TRAIN_MISTAKES]
        wrong += [_after(task, state, batches[:steps], None)[0] for steps in (1, 2)]
        if is_telling(scores) and not any(same(w, weights) for w in wrong):
            break
    probe_with(student, task, state)
    taken: list[int] = []
    found = task.train(student, batches, taken, leftover=LEFTOVER)
    _, after = student.ask("state", {"handle": "probe"})
    for order in (None, "zero_grad last"):  # both are right
        weights, answers = _after(task, state, batches, order)
        if same(after, weights):
            _check_means(task, found, lambda m: scores_of(task, answers, batches, batches, m))  # noqa: B023
            return
    raise Lost(
        f"after {len(batches)} steps of gradient descent, the weights that NumPy finds",
        "other weights",
        _training_cause(student, task, state, batches, after, found[2]),
    )


def _training_cause(
    student: Session, task: Task, state, batches: Batches, after, backwards: object
) -> str:
    """The mistake that gives just these weights. Where several leave them as they are, the worker's
    word decides: the gradients that are left, and how often backward() was called."""
    causes = reference.TRAIN_MISTAKES
    for mistake, words in causes.items():
        if same(after, _after(task, state, batches, mistake)[0]):
            if mistake == "softmax" and task.is_mask:
                return (
                    "a sigmoid is applied before the criterion to what are probabilities already."
                )
            _, held = student.ask("held", {"handle": "probe"})
            if mistake == "no step" and backwards == 0:
                return causes["no backward"]
            if mistake == "no step" and not any(np.any(a) for a in held.values()):
                return "zero_grad() comes between backward() and step(): nothing is left to step."
            return words
    for steps in range(1, len(batches)):
        if same(after, _after(task, state, batches[:steps], None)[0]):
            return f"only {steps} of {len(batches)} batches were trained on."
    return _scaled(student, task, state, batches[0]) or (
        "the order is: zero_grad, forward, loss, backward, step."
    )


def _scaled(student: Session, task: Task, state, batch) -> str:
    """What to say where the submission's step on one batch has the right direction and another
    length; else ""."""
    probe_with(student, task, state)
    task.train(student, [batch], [])
    _, after = student.ask("state", {"handle": "probe"})
    right = _after(task, state, [batch], None, leftover=0.0)[0]
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


def check_max_steps(student: Session, rng: np.random.Generator, task: Task) -> None:
    """max_steps batches are taken from the loader and trained on, no more and no less, and the
    means are over these."""
    # Mistakes that cost their own points elsewhere, and still train step by step.
    orders = (None, "zero_grad last", "no zero_grad", "zero_grad once", "softmax")
    for wanted in (3, 1):
        state, batches = drawn(rng, task), task.data(rng, (8, 8, 8, 8, 8, 3))
        probe_with(student, task, state)
        taken: list[int] = []
        found = task.train(student, batches, taken, max_steps=wanted)
        _, after = student.ask("state", {"handle": "probe"})

        def trained(steps: int, after=after, state=state, batches=batches) -> list | None:
            """The answers on the way, if these are the weights after so many steps."""
            for order in orders:
                weights, answers = _after(task, state, batches[:steps], order, leftover=0.0)
                if same(after, weights):
                    return answers
            return None

        answers = trained(wanted)
        if answers is None or len(taken) not in (wanted, wanted + 1):
            steps = next((n for n in range(len(batches) + 1) if trained(n) is not None), None)
            raise Lost(
                f"with max_steps={wanted}, training on the first {wanted} batches",
                f"{len(taken)} batches taken from the loader, and weights "
                + ("of another training" if steps is None else f"after {steps} steps"),
                _steps_cause(steps, wanted, len(batches))
                or _scaled(student, task, state, batches[0]),
            )
        scores = scores_of(task, answers, batches, batches)
        for value, values in zip(found[:2], (scores.losses, scores.metrics), strict=True):
            for words, number in scores.wrong_length(values).items():
                if close(value, number) and apart(np.mean(values), number):
                    raise Lost(
                        f"with max_steps={wanted}, the means over the {8 * wanted} images seen",
                        f"loss {short(found[0])} and {task.metric} {short(found[1])}",
                        words,
                    )


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


# ---- validation ----


def check_validation(student: Session, rng: np.random.Generator, task: Task) -> None:
    """The means over all images; evaluation mode; no gradients recorded; nothing changed.

    The probe answers differently in training mode and where gradients are recorded.
    """

    def outcome(shift: float, mistake: str | None = None) -> Scores:
        answers = [task.make(state).answer(x, shift) for x, _ in batches]
        return scores_of(task, answers, batches, batches, mistake)

    causes = {
        TRAINING: "the model is in training mode: call model.eval() first.",
        RECORDING: "gradients are recorded: use torch.no_grad().",
        TRAINING + RECORDING: "the model is in training mode and gradients are recorded: call "
        "model.eval() and use torch.no_grad().",
    }
    while True:
        state, batches = drawn(rng, task), task.data(rng, (8, 8, 3))
        losses = [outcome(shift).right[0] for shift in (0.0, *causes)]
        if is_telling(outcome(0.0)) and all(map(apart, losses[1:], losses)):
            break
    inside = {f"body.{n}": a for n, a in state.items()}
    inside |= {"bias": np.array([TRAINING, RECORDING], np.float32), "seen": np.zeros(1, np.float32)}
    probe_with(student, task, inside, " mode")
    taken: list[int] = []
    found = task.validate(student, batches, taken)
    _, after = student.ask("state", {"handle": "probe"})
    for shift, words in causes.items():
        if close(found[0], outcome(shift).right[0]):
            raise Lost(
                f"a loss of {losses[0]:.4f}, in evaluation mode and without gradients",
                f"{found[0]:.4f}",
                words,
            )
    changed = [n for n in inside if n not in after or not np.array_equal(after[n], inside[n])]
    if changed:
        raise Lost(
            "weights and buffers as they were before validation",
            f"{', '.join(changed)} changed",
            "validation must be in evaluation mode and must not call backward() or step().",
        )
    if len(set(taken)) != len(batches):
        raise Lost(
            f"means over all {len(batches)} batches",
            f"only {len(set(taken))} were taken from the loader",
            "validation must use every batch.",
        )
    _check_means(task, found, lambda mistake: outcome(0.0, mistake))
