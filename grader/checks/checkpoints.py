"""Final models: the checkpoint that a submission brings, and its score on fresh images."""

import json
from collections.abc import Mapping
from pathlib import Path

from autograde.assignment import GradedTest
from autograde.feedback import Lost
from autograde.submission import CHECKPOINTS, MAX_CHECKPOINT, MAX_COPIED, TOO_LARGE
from grader.checks.student import Model, Student

# What a model's __init__ may be given by the mains' flags, as a run's config.json has it.
OPTIONS = ("width", "depth", "kernel_size", "base_channels", "skips")


def find_checkpoint(submission: Path, task: str) -> tuple[Path, str, dict[str, int | bool]]:
    """(weight file, name of its model, its model's options), from the trusted copy.

    The options are the keywords of the model's that the run was given as flags (OPTIONS). Raises
    Lost where something is missing.
    """
    folder = submission.parent / CHECKPOINTS
    paths = [folder / f"{task}{suffix}" for suffix in (".safetensors", ".pt")]
    found = [path for path in paths if path.is_file()]
    large = [path for path in paths if path.with_name(path.name + TOO_LARGE).exists()]
    if large and not found:
        most = f"{MAX_CHECKPOINT >> 20} MiB, {MAX_COPIED >> 20} MiB with all others"
        raise Lost(f"checkpoints/{large[0].name} of at most {most}", "more, which is not read")
    if not found:
        raise Lost(f"checkpoints/{paths[0].name}, the weights of your best model", "no such file")
    for path in sorted(folder.glob("*.json"), key=lambda p: (p.stem != task, p.name)):
        try:
            about = json.loads(path.read_bytes())  # as bytes: a BOM is no mistake
            model = about["model"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(model, str) and len(model) < 50:
            options = {name: about.get(name) for name in OPTIONS}
            return found[0], model, {k: v for k, v in options.items() if type(v) in (int, bool)}
    raise Lost(f'checkpoints/{task}.json with {{"model": NAME}}', "no such file that can be read")


def build_final(student: Student, options: Mapping[str, int] | None = None) -> tuple[str, Model]:
    """(the name of the submitted checkpoint's model, the model with its weights).

    The weights reach the worker as bytes, and here alone: no other test's worker can read them.
    """
    task = student.task
    file, name, own = find_checkpoint(student.session.submission, task.name)
    model = student.build(task.factory, name, handle="final", options={**own, **(options or {})})
    model.load_weights(file)
    return name, model


def check_final(target: GradedTest, score: float) -> None:
    """Points for a submitted checkpoint's score on fresh images."""
    if target.fraction(score) < 1:
        raise Lost(
            f"{target.title}, on fresh images",
            f"{score:.4f}",
            "train longer, with augmentation and a decaying learning rate (`--recipe best`).",
            fraction=target.fraction(score),
        )
