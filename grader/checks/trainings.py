"""Checks of whole trainings and evaluations on a probe."""

import numpy as np

from autograde.feedback import Lost
from autograde.student import Session
from grader.checks import reference
from grader.checks.averages import apart, close, short
from grader.checks.epochs import Task, drawn, probe_with, same
from grader.checks.models import BATCH, STEPS, own_batches


def check_train_model(student: Session, rng: np.random.Generator, task: Task) -> None:
    """The history's shape; the given model has learned, in the steps and at the rate asked for."""
    epochs, steps, in_loader = 5, 4, 6
    state = {n: np.zeros(s, np.float32) for n, s in zip(task.make.names, task.make.shapes)}  # noqa: B905
    train = task.data(rng, (8,) * in_loader)
    if task.is_mask:
        train = [(x, (x[:, :1] > 0).astype(np.float32)) for x, _ in train]
    val = train[:3]
    taken: list[str] = []
    lists = ("train_loss", f"train_{task.metric}", "val_loss", f"val_{task.metric}")

    def fit(*budget):
        """(history and device, weights after) of one training from the same weights."""
        probe_with(student, task, state)
        taken.clear()
        request = {"module": task.module, "name": task.train_model, "handle": "probe"}
        request |= {"is_mask": task.is_mask, "batches": in_loader, "images": 8 * in_loader}
        request |= {"val_batches": len(val), "val_images": 8 * len(val), "budget": budget}
        request |= {"lists": lists}

        def give(split: str, number) -> dict[str, np.ndarray]:
            taken.append(split)
            return own_batches(train if split == "train" else val, [])(split, number)

        about, _ = student.ask("fit", request, batches=give)
        if about["device"] != "cpu":
            raise Lost(
                "the model on the device that it came on",
                f"it is on {str(about['device'])[:20]}",
                "the model is moved to another device; keep next(model.parameters()).device.",
            )
        return about["history"], student.ask("state", {"handle": "probe"})[1]

    rate = 0.5 if task.is_mask else 0.01
    history, after = fit(epochs, rate, 0.0, steps)
    for name in lists:
        got = len(history[name]) if name in history else "no such list"
        if got != epochs:
            cause = "append once in every epoch, after it was trained and validated."
            if name not in history:
                cause = f"the history has no list {name!r}."
            raise Lost(f"history[{name!r}] with one entry for each of {epochs} epochs", got, cause)
    if same(after, state):
        raise Lost(
            "the model that train_model was given to be trained",
            "its weights did not change",
            "a copy is trained, or the optimizer has the parameters of another model.",
        )
    limit = epochs * (steps + 1)
    if taken.count("train") > limit:
        raise Lost(
            f"{epochs} epochs of {steps} steps (max_steps_per_epoch)",
            f"{taken.count('train')} batches were taken from the loader of {in_loader}",
            "max_steps_per_epoch does not reach the training epoch, or is ignored there.",
        )
    probe = task.make(after)
    score = np.mean([probe.metric(probe.answer(x), y) for x, y in train[:steps]])
    if score < 0.8:
        raise Lost(
            f"{8 * steps} images to be learned by heart in {epochs} epochs of {steps} steps at "
            f"learning rate {rate}: {task.metric} above 0.8",
            f"{score:.2f}",
            "fewer steps, or other settings, than were asked for.",
        )
    after = fit(1, 1e-7, 0.0, steps)[1]
    if max(float(np.abs(after[n] - state[n]).max()) for n in state) > 1e-5:
        raise Lost(
            "hardly any change of the weights at learning rate 1e-7",
            "weights that changed by much more",
            "learning_rate is ignored.",
        )
    state = {n: a + 1 for n, a in state.items()}
    plain, decayed = (fit(1, rate, decay, steps)[1] for decay in (0.0, 0.5))
    if same(plain, decayed):
        raise Lost(
            "other weights with weight_decay=0.5 than with 0",
            "the same",
            "weight_decay is ignored.",
        )


def train_100_steps(student: Session, task: Task, images: np.ndarray, targets: np.ndarray) -> None:
    """Train "model" by the submission's own epoch function: 100 batches of 32 and no more, Adam."""
    batches = [
        (images[i : i + BATCH], targets[i : i + BATCH]) for i in range(0, STEPS * BATCH, BATCH)
    ]
    request = {"handle": "model", "criterion": task.long_criterion, "max_steps": STEPS}
    request |= {"optimizer": "adam", "learning_rate": 1e-3}
    task.train(student, batches, [], seconds=300, **request)


def check_evaluation(student: Session, rng: np.random.Generator, task: Task) -> None:
    """Mean and deviation of single images' IoU, over batches of different sizes."""
    sizes = (8, 8, 3)

    def outcome(mistake: str | None = None) -> tuple[list[float], list[float]]:
        """Each image's IoU, and each batch's."""
        answers = [task.make(state).answer(x) for x, _ in batches]
        one = [
            reference.iou(a[None], m[None], mistake=mistake)
            for answer, (_, true) in zip(answers, batches, strict=True)
            for a, m in zip(answer, true, strict=True)
        ]
        pairs = zip(answers, batches, strict=True)
        return one, [reference.iou(answer, true) for answer, (_, true) in pairs]

    while True:
        state, batches = drawn(rng, task), task.data(rng, sizes)
        single, whole = outcome()
        mean, deviation = float(np.mean(single)), float(np.std(single))
        if apart(mean, np.mean(whole)) and apart(deviation, np.std(whole)):
            break
    probe_with(student, task, state)
    request = {"module": task.module, "name": "evaluate_segmentation_model", "handle": "probe"}
    result, _ = student.ask(
        "evaluate",
        {**request, "batches": len(batches), "images": sum(sizes)},
        batches=own_batches(batches, []),
    )
    found, spread, total = (result[name] for name in ("mean_iou", "std_iou", "total_samples"))
    # A wrong calculate_iou costs its own points, and not these.
    accepted = [single, *(outcome(mistake)[0] for mistake in reference.IOU_MISTAKES)]
    if not any(close(found, np.mean(ious)) for ious in accepted):
        cause = ""
        if close(found, np.mean(whole)):
            cause = "average over the images, not over batches of different sizes."
        raise Lost(f"mean_iou {mean:.4f}", short(found), cause)
    if not any(close(spread, np.std(i, ddof=ddof)) for i in accepted for ddof in (0, 1)):
        cause = ""
        if any(close(spread, np.std(whole, ddof=ddof)) for ddof in (0, 1)):
            cause = "the deviation is taken over batches, not over single images' IoU."
        raise Lost(f"std_iou {deviation:.4f}", short(spread), cause)
    if total != sum(sizes):
        cause = "count images, not batches." if total == len(sizes) else ""
        raise Lost(f"total_samples {sum(sizes)}", short(total), cause)
