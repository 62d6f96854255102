"""What a sweep's JSON file asks for, checked before anything runs."""

import itertools
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pathlab.errors import UserError, suggestion
from pathlab.files import write_json
from pathlab.settings import check_same, flag, read_settings

SEARCHES = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "halving")
METRICS = {"classification_main": "best_val_acc", "segmentation_main": "best_val_iou"}
MINIMISED = ("loss", "error", "seconds")  # a metric whose name has one of these is to be small
KEYS = ("name", "script", "params", "metric", "direction", "seeds")
SET_BY_DISPATCHER = ("output_dir", "resume")
REPO = Path(__file__).resolve().parents[2]
SWEEP = "sweep.json"  # in the sweep's folder
Value = str | int | float | bool | None
EXAMPLE = '{"script": "classification_main.py", "params": {"model": ["mlp", "cnn"]}}'


@dataclass
class Part:
    """One script with the values to try; most sweeps have one part.

    params: what is searched: a list of values, or {"low", "high", "log"} for a range. fixed: the
    same in every trial. seeds: one trial each for every configuration; empty: a single one, with
    the script's own seed. flags: see pathlab.sweep.parser; may lack any name.
    """

    name: str
    script: Path
    params: dict[str, Any]
    fixed: dict[str, Any]
    metric: str
    direction: str
    seeds: list[int]
    flags: dict[str, dict] = field(default_factory=dict)
    resumable: bool = False

    @property
    def has_ranges(self) -> bool:
        """Whether a parameter is a range, of which there is no grid."""
        return any(isinstance(values, dict) for values in self.params.values())

    def grid(self) -> list[dict[str, Value]]:
        """All combinations; the last parameter changes fastest. Not for ranges."""
        combinations = itertools.product(*self.params.values())
        return [dict(zip(self.params, values, strict=True)) for values in combinations]

    def arguments(self, params: dict[str, Any], seed: object = None) -> list[str]:
        """The command line of one trial, without --output-dir."""
        values = {**self.fixed, **params} | ({} if seed is None else {"seed": seed})
        return [
            word for name, value in values.items() for word in flag_words(self.flags, name, value)
        ]

    def record(self) -> dict[str, Any]:
        """The part as sweep.json has it."""
        record = asdict(self) | {"script": str(self.script)}
        del record["resumable"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Part":
        """The part from its entry in sweep.json. What the entry lacks, or has as another type than
        it should, is taken as empty."""
        name = str(record.get("name", "unnamed"))
        params, fixed, flags = (
            found if isinstance(found := record.get(key), dict) else {}
            for key in ("params", "fixed", "flags")
        )
        return cls(
            name=name,
            script=Path(str(record.get("script", f"{name}.py"))),
            params={k: v if isinstance(v, list | dict) else [v] for k, v in params.items()},
            fixed=fixed,
            metric=str(record.get("metric", "value")),
            direction="minimize" if record.get("direction") == "minimize" else "maximize",
            seeds=record["seeds"] if isinstance(record.get("seeds"), list) else [],
            flags={k: v for k, v in flags.items() if isinstance(v, dict)},
        )


def flag_words(flags: dict[str, dict], name: str, value: object) -> list[str]:
    """A parameter's words on the command line. None, and False without a flag for it, are none."""
    known = flags.get(name) or {}
    spelled = str(known.get("flag") or flag(name))
    if value is None or value is False:
        return [str(known["off"])] if value is False and known.get("off") else []
    if value is True:
        return [spelled]
    text = value if isinstance(value, str) else json.dumps(value)
    return [f"{spelled}={text}"] if text.startswith("-") else [spelled, text]  # -x would be a flag


def remember(folder: Path, parts: list[Part], about: dict[str, Any]) -> None:
    """Write sweep.json, or make sure that it says the same as when the folder was begun.

    Another number of trials of a random or TPE search is the one change that an old folder allows.
    Raises UserError for any other; for another order of the parameters too, as the configurations
    are numbered by it.
    """
    path, now = folder / SWEEP, {**about, "parts": [part.record() for part in parts]}
    if path.exists():
        check_same(
            _by_part(read_settings(path, "Take another --output-dir.", required=["parts"])),
            _by_part(now),
            problem=f"{folder} holds a sweep with other settings",
            advice="Undo the change to finish that sweep, or take another --output-dir.",
            may_change=[] if about["search"] == "grid" else ["trials"],
        )
    write_json(path, now)


def _by_part(record: dict[str, Any]) -> dict[str, Any]:
    parts = [part for part in record["parts"] if isinstance(part, dict)]
    named = {part.get("name"): {**part, "flags": None} for part in parts}
    return {**record, "parts": named}


def read_parts(path: Path, seeds: int | None = None) -> list[Part]:
    """The parts of a sweep. seeds: so many seeds for each configuration, where the file names none.

    Raises UserError for a file that cannot be used.
    """
    try:
        content = json.loads(path.read_text(), object_pairs_hook=_no_key_twice)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON: {error}. A sweep looks like {EXAMPLE}."
        ) from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} should hold one JSON object that says what to sweep: {EXAMPLE}.")
    parts = content.get("parts") if set(content) == {"parts"} else [content]
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise UserError(f'{path}: "parts" should be a list of objects such as {EXAMPLE}.')
    read = [_part(path, part, seeds) for part in parts]
    names = [part.name for part in read]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{path}: two parts are called {name}; give each a "name" of its own.')
    return read


def _part(path: Path, part: dict[str, Any], seeds: int | None) -> Part:
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


def _params(path: Path, params: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what is searched, what is fixed), by plain names: --batch-size is batch_size."""
    if not isinstance(params, dict):
        raise UserError(f'{path}: "params" should be an object with a list for each flag.')
    searched: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    for given, value in params.items():
        name = given.lstrip("-").replace("-", "_")
        if name in given_as:
            raise UserError(f"{path}: {given!r} and {given_as[name]!r} are the same flag.")
        given_as[name] = given
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
    seen = set()
    for value in values:
        text = str(_scalar(path, name, value))
        text = str(float(value)) if type(value) in (int, float) else text
        if text in seen:
            raise UserError(f"{path}: {name!r} lists {value!r} twice.")
        seen.add(text)
    return values


def _range(path: Path, name: str, value: dict) -> dict[str, Any]:
    low: Any
    high: Any
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
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise UserError(f"{path}: a value of {name!r} is {value!r}; numbers and strings are possible.")


def _seeds(path: Path, seeds: object) -> list[int]:
    if seeds is None:
        return []
    if type(seeds) is int and seeds > 0:
        return list(range(seeds))
    whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if isinstance(seeds, list) and whole and 0 < len(set(seeds)) == len(seeds):
        return seeds
    raise UserError(
        f'{path}: "seeds" should be how many, or a list of different whole numbers, not {seeds!r}.'
    )


def _find(path: Path, script: object) -> Path:
    if isinstance(script, str):
        for folder in (Path.cwd(), path.parent, REPO):
            if (folder / script).is_file():
                return (folder / script).resolve()
    raise UserError(f'{path}: "script" is {script!r}, and there is no such file.')


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"the sweep's file names {twice!r} twice; JSON would keep only the last.")
    return found
