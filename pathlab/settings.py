"""The same settings as before, or refuse: what work that is continued in a folder may not change.

A training, a capstone's training, a sweep and the grading of a class all keep their settings as
JSON in their folder, and all of them are continued by the same command. Nothing heavy is imported.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from pathlab.errors import UserError


def flag(name: str) -> str:
    """A setting's name as the command line spells it: "max_steps" -> "--max-steps"."""
    return "--" + name.replace("_", "-")


def as_json(settings: Mapping[str, object]) -> dict:
    """The settings as they come back from a JSON file: tuples are lists, paths are strings."""
    return json.loads(json.dumps(dict(settings), default=str))


def read_settings(path: Path, advice: str, required: Collection[str] = ()) -> dict:
    """The settings in a JSON file of an earlier run.

    Raises UserError, which ends with `advice`, for a file that cannot be read, that is not a JSON
    object, or that lacks one of the names in `required`.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is not a JSON object")
        if missing := set(required) - set(settings):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return settings
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). {advice}") from error


def differences(
    saved: Mapping[str, object], now: Mapping[str, object], may_change: Collection[str] = ()
) -> dict[str, str]:
    """The settings that are not the same, by name, in words: {"seed": "seed was 0, is 3"}.

    Both sides are compared as JSON has them. A nested setting is reported by its own name, under
    the key "outer.inner"; so is another order of a nested object's names. Names in `may_change`
    are left out (of the outermost level).
    """
    saved, now = as_json(saved), as_json(now)
    found: dict[str, str] = {}
    for name in {**saved, **now}:
        if name not in may_change:
            found |= _difference(name, name, saved.get(name), now.get(name))
    return found


def check_same(
    saved: Mapping[str, object],
    now: Mapping[str, object],
    *,
    problem: str,
    advice: str,
    may_change: Collection[str] = (),
) -> None:
    """Raise UserError where settings differ that may not.

    problem: how the message begins, such as "runs/sweep-1 holds a sweep with other settings"; the
    differences follow in brackets, then `advice`, what to do. may_change: as in differences.
    """
    if found := differences(saved, now, may_change):
        raise UserError(f"{problem} ({'; '.join(found.values())}). {advice}")


def merge(
    defaults: Mapping[str, object],
    saved: Mapping[str, object],
    typed: Mapping[str, object],
    *,
    folder: Path | None = None,
    folder_flag: str = "--output-dir",
    may_change: Collection[str] = (),
) -> dict:
    """The settings to work with: those typed, else those saved, else the defaults.

    saved: of the run in `folder` that is resumed; empty for a new run. typed: the flags that the
    user gave, and no others. may_change: settings that a resumed run may change, since they say how
    or where it runs, not what it computes. folder_flag: the flag that names a run's folder.

    Raises UserError for typed settings that contradict the saved ones.
    """
    before = {**defaults, **saved}
    fixed = [name for name in typed if saved and name not in may_change]
    was = {flag(name): before.get(name) for name in fixed}
    now = {flag(name): typed[name] for name in fixed}
    flags = " ".join(dict.fromkeys(name.partition(".")[0] for name in differences(was, now)))
    check_same(
        was,
        now,
        problem=f"{folder} holds a run with other settings",
        advice=f"A resumed run keeps its settings: leave {flags} out, or start again in another "
        f"{folder_flag}.",
    )
    return {**before, **typed}


def _difference(path: str, name: str, was: object, now: object) -> dict[str, str]:
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return {} if was == now else {path: f"{name} was {was}, is {now}"}
    found: dict[str, str] = {}
    for inner in {**was, **now}:
        found |= _difference(f"{path}.{inner}", inner, was.get(inner), now.get(inner))
    if not found and list(was) != list(now):
        found[path] = f"the order of {name} was {', '.join(was)}, is {', '.join(now)}"
    return found
