"""What a sweep's JSON file asks for, checked before anything runs."""

import itertools
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pathlab.errors import UserError, suggestion

SEARCHES = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "halving")
METRICS = {"classification_main": "best_val_acc", "segmentation_main": "best_val_iou"}
MINIMISED = ("loss", "error", "seconds")  # a metric whose name has one of these is to be small
KEYS = ("name", "script", "params", "metric", "direction", "seeds")
SET_BY_DISPATCHER = ("output_dir", "resume")
REPO = Path(__file__).resolve().parents[2]
Value = str | int | float | bool | None
EXAMPLE = '{"script": "classification_main.py", "params": {"model": ["mlp", "cnn"]}}'


@dataclass
class Part:
    """One script with the values to try; most sweeps have one part.

    params: what is searched: a list of values, or {"low", "high", "log"} for a range. fixed: the
    same in every trial. seeds: one trial each for every configuration; empty: a single one, with
    the script's own seed. flags: see pathlab.sweep.parser.
    """

    name: str
    script: Path
    params: dict[str, list[Value] | dict]
    fixed: dict[str, Value]
    metric: str
    direction: str
    seeds: list[int]
    flags: dict[str, dict] = field(default_factory=dict)
    resumable: bool = False

    @property
    def has_ranges(self) -> bool:
        return any(isinstance(values, dict) for values in self.params.values())

    def grid(self) -> list[dict[str, Value]]:
        """All combinations; the last parameter changes fastest. Not for ranges."""
        return [
            dict(zip(self.params, values, strict=True))
            for values in itertools.product(*self.params.values())
        ]

    def about(self) -> dict:
        """What identifies the part, for sweep.json."""
        about = asdict(self) | {"script": str(self.script)}
        del about["flags"], about["resumable"]
        return about


def read_parts(path: Path, seeds: int | None = None) -> list[Part]:
    """The parts of a sweep. seeds: so many seeds for each configuration, where the file names none.

    Raises UserError for a file that cannot be used.
    """
    try:
        content = json.loads(path.read_text(), object_pairs_hook=_no_key_twice)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}. It should look like {EXAMPLE}.") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} should hold one JSON object, such as {EXAMPLE}.")
    parts = content.get("parts") if set(content) == {"parts"} else [content]
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise UserError(f'{path}: "parts" should be a list of objects such as {EXAMPLE}.')
    read = [_part(path, part, seeds) for part in parts]
    names = [part.name for part in read]
    for part in read:
        if names.count(part.name) > 1:
            raise UserError(
                f'{path}: two parts are called {part.name}; give each a "name" of its own.'
            )
    return read


def _part(path: Path, part: dict, seeds: int | None) -> Part:
    if "params" not in part:
        if {"script", "metric", "seeds"} & set(part):
            raise UserError(f'{path} has no "params": {EXAMPLE}.')
        part = {"params": part}  # the original course's files
    for key in set(part) - set(KEYS):
        raise UserError(f"{path}: unknown key {key!r}. {suggestion(key, KEYS)}")
    script = _find(path, part.get("script", "classification_main.py"))
    params, fixed = _params(path, part["params"])
    metric = part.get("metric", METRICS.get(script.stem))
    if not isinstance(metric, str):
        raise UserError(
            f'{path}: "metric" should name a number that {script.name} writes to results.json.'
        )
    natural = "minimize" if any(word in metric for word in MINIMISED) else "maximize"
    direction = part.get("direction", natural)
    if direction not in ("maximize", "minimize"):
        raise UserError(f'{path}: "direction" should be "maximize" or "minimize".')
    name = part.get("name", script.stem)
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f'{path}: "name" should be letters, digits, - and _, not {name!r}.')
    numbers = _seeds(path, part.get("seeds", seeds))
    if numbers and "seed" in {**params, **fixed}:
        raise UserError(f'{path}: give either "seeds" or the parameter "seed", not both.')
    return Part(name, script, params, fixed, metric, direction, numbers)


def _params(path: Path, params: object) -> tuple[dict, dict]:
    if not isinstance(params, dict):
        raise UserError(f'{path}: "params" should be an object with a list for each flag.')
    searched, fixed, plain_names = {}, {}, {}
    for given, value in params.items():
        name = given.lstrip("-").replace("-", "_")
        if name in plain_names:
            raise UserError(f"{path}: {given!r} and {plain_names[name]!r} are the same flag.")
        plain_names[name] = given
        if name in SET_BY_DISPATCHER:
            raise UserError(f"{path}: {given!r} is set by the dispatcher itself; leave it out.")
        if isinstance(value, list):
            searched[name] = _values(path, given, value)
        elif isinstance(value, dict):
            searched[name] = _range(path, given, value)
        else:
            fixed[name] = _scalar(path, given, value)
    return searched, fixed


def _values(path: Path, name: str, values: list) -> list[Value]:
    if not values:
        raise UserError(f"{path}: {name!r} has an empty list; give at least one value.")
    seen = {}
    for value in values:
        text = str(_scalar(path, name, value))
        text = str(float(value)) if type(value) in (int, float) else text
        if text in seen:
            raise UserError(f"{path}: {name!r} lists {value!r} twice.")
        seen[text] = value
    return values


def _range(path: Path, name: str, value: dict) -> dict:
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    numbers = all(type(v) in (int, float) and math.isfinite(v) for v in (low, high))
    wrong = set(value) - {"low", "high", "log"} or not numbers or type(log) is not bool
    if wrong or low >= high or (log and low <= 0):
        raise UserError(
            f"{path}: a range is written as "
            f'{{"low": 0.0001, "high": 0.01, "log": true}}, with low < high; {name!r} is {value}.'
        )
    return {"low": low, "high": high, "log": log}


def _scalar(path: Path, name: str, value: object) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}: {name!r} is {value}; JSON has finite numbers only.")
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise UserError(f"{path}: a value of {name!r} is {value!r}; numbers and strings are possible.")


def _seeds(path: Path, seeds: object) -> list[int]:
    if seeds is None:
        return []
    if type(seeds) is int and seeds > 0:
        return list(range(seeds))
    whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise UserError(
            f'{path}: "seeds" should be how many, or a list of different whole numbers, not '
            f"{seeds!r}."
        )
    return seeds


def _find(path: Path, script: object) -> Path:
    if isinstance(script, str):
        for folder in (Path.cwd(), path.parent, REPO):
            if (folder / script).is_file():
                return (folder / script).resolve()
    raise UserError(f'{path}: "script" is {script!r}, and there is no such file.')


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"the sweep's file names {twice!r} twice; JSON would keep only the last.")
    return found
