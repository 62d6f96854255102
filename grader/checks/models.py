"""Checks that both parts use. All inputs are drawn fresh; all scores are computed here."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import numpy as np
import pytest

from autograde.feedback import Lost, place
from autograde.student import Session
from autograde.submission import CHECKPOINTS, MAX_CHECKPOINT, MAX_COPIED, TOO_LARGE

BATCH = 32
STEPS = 100
HIDDEN = 1000  # images that a trained model is scored on; their labels never leave this process
TRAINING_CPU_SECONDS = 180  # for 100 steps; the reference's largest model takes 10 to 20
MOST_WISHES = 1000  # batches that one call of the submission's code may take
SEEDS = 3  # trainings that a threshold may take; the first that passes ends it

# What a model's __init__ may be given by the mains' flags, as a run's config.json has it.
OPTIONS = ("width", "depth", "kernel_size", "base_channels", "skips")

TRAIN_EPOCH = ("model", "train_loader", "optimizer", "criterion", "device", "max_steps")
TRAIN_MODEL = (
    "model",
    "train_loader",
    "val_loader",
    "epochs",
    "learning_rate",
    "weight_decay",
    "max_steps_per_epoch",
)


def graded(number: str, title: str, points: float):
    """The decorator that makes a test a graded one: its number in the handout, title, points."""
    return pytest.mark.graded(number, title, points)


def made(
    student: Session,
    module: str,
    name: str,
    rng: np.random.Generator,
    handle: str = "model",
    **kwargs,
) -> dict:
    """Build a model of the submission; the shapes of its parameters."""
    student.ask("load", {"module": module})
    request = {"module": module, "name": name, "seed": seed_of(rng), "handle": handle}
    return student.ask("build", {**request, "kwargs": kwargs})[0]


def stirred(
    student: Session,
    module: str,
    name: str,
    rng: np.random.Generator,
    handle: str = "model",
    **kwargs,
) -> None:
    """`made`, and then noise on parameters whose numbers are all alike, such as a last layer that
    starts at zero: right, but its answers would say nothing about the layers before."""
    made(student, module, name, rng, handle, **kwargs)
    student.ask("stir", {"handle": handle, "seed": seed_of(rng)})


def noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """Images float32 [n, 3, 28, 28], uniform in [-1, 1]."""
    return rng.uniform(-1, 1, (n, 3, 28, 28)).astype(np.float32)


def fresh_rng() -> np.random.Generator:
    """From the system's entropy: nothing that is asked in a grading can be known in advance."""
    return np.random.default_rng(secrets.randbits(128))


def seed_of(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


@contextmanager
def written_in(student: Session, module: str, name: str) -> Iterator[None]:
    """Points lost inside are explained with the line where the submission defines `name`."""
    try:
        yield
    except Lost as lost:
        lost.args = (f"{lost}{place(student.submission, module, name)}",)
        raise


def forward(
    student: Session, handle: str, images: np.ndarray, shape: tuple, what: str
) -> np.ndarray:
    """The model's answer, of the right shape and dtype and finite, or Lost."""
    _, out = student.ask("forward", {"handle": handle}, {"images": images})
    answer = out.get("answer")
    if answer is None or answer.dtype != np.float32 or answer.shape != shape:
        got = "nothing" if answer is None else f"{answer.dtype} of shape {list(answer.shape)}"
        raise Lost(f"{what}: float32 of shape {list(shape)}", got, _shape_cause(answer, shape))
    if not np.isfinite(answer).all():
        raise Lost(f"{what}: finite numbers", "NaN or infinite values")
    return answer


def _shape_cause(answer: np.ndarray | None, shape: tuple) -> str:
    if answer is None:
        return ""
    if answer.ndim == 4 and answer.shape[1:] == (*shape[2:], shape[1]):
        return "channels come last in your answer (NHWC); PyTorch wants them second (NCHW)."
    if answer.ndim == 4 and answer.shape[2] == shape[2] - 1:
        return (
            f"the output is cropped to {answer.shape[2]}x{answer.shape[3]}: a pixel is lost on the "
            "way down and up, where an odd size was halved and doubled."
        )
    if answer.shape == (shape[0], *shape[2:]):
        return "the dimension of the channels is gone: unsqueeze(1) gives it back."
    if len(shape) == 2 and answer.ndim == 2 and answer.shape[0] == shape[0]:
        return (
            "num_classes is not used for the last layer, or the layers are shared with another "
            "model (a mutable default argument, a list at class level)."
        )
    if answer.shape[:1] != shape[:1] or answer.ndim < 2:
        return "the batch was flattened away, or averaged; use flatten(start_dim=1)."
    return ""


def own_batches(batches: list[tuple[np.ndarray, np.ndarray]], taken: list) -> Callable:
    """The function that hands out batches one by one, and notes in `taken` which were."""

    def give(split: str, number) -> dict[str, np.ndarray]:
        if type(number) is not int or not 0 <= number < len(batches):
            raise Lost(f"batches 0 to {len(batches) - 1}", f"a wish for batch {str(number)[:50]}")
        taken.append(number)
        if len(taken) > MOST_WISHES:
            raise Lost(f"{len(batches)} batches an epoch", f"{len(taken)} wishes for a batch")
        images, targets = batches[number]
        return {"images": images, "targets": targets}

    return give


def check_alone(student: Session, together: np.ndarray, images: np.ndarray, name: str) -> None:
    """An image's answer does not depend on the other images. together: the answers in a batch."""
    shape = (1, *together.shape[1:])
    parts = [forward(student, "model", image[None], shape, name) for image in images]
    gap = np.abs(together - np.concatenate(parts)).max()
    if gap > 1e-4 * max(1, np.abs(together).max()):
        raise Lost(
            f"the same answer of {name} for an image alone and in a batch",
            f"answers that differ by {gap:.2g}",
            "the batch is mixed, by flatten() without start_dim=1 or a mean over dimension 0.",
        )


def check_linear(
    name: str, straight: bool, x: np.ndarray, y: np.ndarray, middle: np.ndarray
) -> None:
    """Whether logits of images, of other images, and of the means of both are on a line."""
    x, y, middle = (logits.astype(np.float64) for logits in (x, y, middle))  # no overflow
    gap, span = np.abs(middle - (x + y) / 2).max(), np.abs(x - y).max()
    if straight and (gap > 1e-3 * span or span == 0):
        raise Lost(
            f"{name}'s logits of the mean of two images: the mean of both images' logits",
            "other logits",
            f"there is an activation or another layer in {name}.",
        )
    if not straight and gap <= 1e-3 * span:
        raise Lost(
            f"{name} to be more than one linear map",
            "logits that are linear in the image",
            "the ReLU between the layers is missing.",
        )


def check_weights(
    student: Session, rng: np.random.Generator, name: str, make: Callable[[str], object]
) -> None:
    """A model's parameters: the same at every call, all used, and its own.

    make(handle): builds another model of the class `name` in the worker, and stirs it. The weights
    stay there: a model may be large, and a claim about a parameter is not worth more if its numbers
    come along.
    """
    make("model")
    images = noise(rng, 4)

    def answer(handle: str = "model", op: str = "forward", **args) -> np.ndarray:
        _, out = student.ask(op, {"handle": handle, **args}, {"images": images})
        return out["answer"]

    first = answer()
    if not np.array_equal(first, answer()):
        raise Lost(
            f"{name} in evaluation mode to answer the same twice",
            "two different answers",
            "a layer is created in forward(), with new weights at every call, or dropout works in "
            "evaluation mode too (F.dropout needs training=self.training).",
        )
    shapes, _ = student.ask("build_shapes", {"handle": "model"})
    # In evaluation mode: batch norm cancels the bias of the convolution before it in training mode.
    reached, _ = student.ask("gradient", {"handle": "model"}, {"images": images})
    dead = [parameter for parameter in shapes if parameter not in reached]
    if dead or not shapes:
        raise Lost(
            f"a gradient for every parameter of {name}",
            f"none for {', '.join(dead[:3])}" + (" and more" if len(dead) > 3 else ""),
            "a layer is made in __init__ and never used in forward, or the answer is detached.",
        )
    for parameter in shapes:
        moved = answer(op="forward_moved", name=parameter, seed=seed_of(rng))
        if np.array_equal(moved, first):
            raise Lost(
                f"an answer of {name} that depends on the parameter {parameter}",
                "the same answer whatever it is",
                "the layer's output is not used.",
            )
    make("second")
    before = answer("second")
    student.ask("zero", {"handle": "model"})
    if not np.array_equal(answer("second"), before):
        raise Lost(
            f"two models of {name} with weights of their own",
            "a change of one model changes the other",
            "layers are shared: a mutable default argument (`layers=[]`), a list at class level, "
            "or layers that are made outside of __init__.",
        )


def check_count(
    student: Session, module: str, handle: str, what: str, shapes: dict[str, list[int]]
) -> None:
    """count_parameters of a model whose parameters have these shapes."""
    right = sum(int(np.prod(shape)) for shape in shapes.values())
    count, _ = student.ask("count_parameters", {"module": module, "handle": handle})
    if count != right:
        cause = "add up parameter.numel() over model.parameters()."
        if count == len(shapes):
            cause = "this counts the tensors, not their elements: add up parameter.numel()."
        raise Lost(f"count_parameters of {what}: {right}", _whole(count), cause)


def _whole(number: object) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)[:50]


def check_names(student: Session, found: dict, functions: dict[str, tuple[str, ...]]) -> None:
    """Every name of the handout, and the functions' parameters in the order of the handout."""
    missing = [name for name, about in found.items() if not about["kind"]]
    if missing:
        raise Lost(
            "the names of the handout",
            f"{', '.join(missing)} missing",
            "a name is missing or misspelt; compare with the handout.",
        )
    for name, parameters in functions.items():
        got = found[name]["parameters"]
        if tuple(got[: len(parameters)]) != parameters:
            raise Lost(
                f"{name}({', '.join(parameters)})",
                f"{name}({', '.join(map(str, got))})",
                "the parameters have other names, or another order, than in the handout.",
            )


def trained_alone(run: Callable[..., float]) -> Callable[..., float]:
    """Gives a training a worker of its own: nothing is left of an earlier one, and what it takes
    of the processor is bounded, from the import of the modules to the last answer."""

    @wraps(run)
    def alone(student: Session, *args) -> float:
        with student.fresh(TRAINING_CPU_SECONDS):
            return run(student, *args)

    return alone


def threshold(name: str, unit: str, target: float, floor: float, run: Callable[[], float]) -> None:
    """Points for a score of at least `target` in one of SEEDS trainings; between floor and target
    the best one counts in proportion."""
    scores = []
    for _ in range(SEEDS):
        scores.append(run())
        if scores[-1] >= target:
            return
    best = max(scores)
    raise Lost(
        f"{name}: {unit} of at least {target:.2f} after {STEPS} steps of batch {BATCH}, in one of "
        f"{SEEDS} trainings",
        ", ".join(f"{score:.3f}" for score in scores),
        "try a larger network, batch norm, or check that the input reaches every layer.",
        fraction=float(np.clip((best - floor) / (target - floor), 0, 0.99)),
    )


def checkpoint(student: Session, task: str) -> tuple[Path, str, dict[str, int | bool]]:
    """(weight file, name of its model, its model's options), from the trusted copy.

    The options are the keywords of the model's that the run was given as flags (OPTIONS).
    """
    folder = student.submission.parent / CHECKPOINTS
    paths = [folder / f"{task}{suffix}" for suffix in (".safetensors", ".pt")]
    found = [path for path in paths if path.is_file()]
    large = [path for path in paths if path.with_name(path.name + TOO_LARGE).exists()]
    if large and not found:
        most = f"{MAX_CHECKPOINT >> 20} MiB, {MAX_COPIED >> 20} MiB with all others"
        raise Lost(f"checkpoints/{large[0].name} of at most {most}", "more, which is not read")
    if not found:
        raise Lost(f"checkpoints/{paths[0].name}, the weights of your best model", "no such file")
    abouts = sorted(folder.glob("*.json"), key=lambda p: (p.stem != task, p.name))
    for path in abouts:
        try:
            about = json.loads(path.read_bytes())  # as bytes: a BOM is no mistake
            model = about["model"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(model, str) and len(model) < 50:
            options = {name: about.get(name) for name in OPTIONS}
            return found[0], model, {k: v for k, v in options.items() if type(v) in (int, bool)}
    raise Lost(f'checkpoints/{task}.json with {{"model": NAME}}', "no such file that can be read")


def final_model(student: Session, task: str, module: str, factory: str) -> str:
    """Build the model of the submitted checkpoint under the handle "final", with its weights.

    Returns its name. factory: the function that makes a model by name. The weights reach the worker
    as bytes, and here alone: no other test's worker can read them.
    """
    path, model, options = checkpoint(student, task)
    student.ask("load", {"module": module})
    request = {"module": module, "name": factory, "args": [model], "seed": 0, "handle": "final"}
    student.ask("build", {**request, "kwargs": options})
    file = np.frombuffer(path.read_bytes(), np.uint8)
    student.ask("load_weights", {"handle": "final", "suffix": path.suffix}, {"file": file})
    return model


def final(unit: str, target: float, floor: float, score: float) -> None:
    """Points for a submitted checkpoint's score on fresh images."""
    if score < target:
        raise Lost(
            f"{unit} of at least {target:.2f} on fresh images",
            f"{score:.4f}",
            "train longer, with augmentation and a decaying learning rate (`--recipe best`).",
            fraction=float(np.clip((score - floor) / (target - floor), 0, 0.99)),
        )
