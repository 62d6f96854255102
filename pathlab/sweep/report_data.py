"""What a sweep has left in its folder, read for the report, and the numbers drawn from it.

Nothing here raises for a damaged or missing file: it is left out, and `Sweep.notes` says so.
"""

import csv
import json
import math
import re
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path

STATES = ("complete", "failed", "pruned")
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor moves in a log


@dataclass
class Trial:
    """One ended run of a script. `value` is finite, or None."""

    number: int | None
    seed: object
    params: dict[str, object]
    state: str
    value: float | None
    seconds: float | None
    error: str
    name: str  # of its folder in trials/
    results: dict[str, object] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)  # (epoch, metric), by epoch

    @property
    def counts(self) -> bool:
        return self.state == "complete" and self.value is not None


@dataclass
class Configuration:
    """One setting of the parameters with the trials that ran it, one a seed."""

    params: dict[str, object]
    trials: list[Trial] = field(default_factory=list)

    @property
    def number(self) -> int:
        return min((t.number for t in self.trials if t.number is not None), default=-1)

    @property
    def counted(self) -> list[Trial]:
        """The complete trials, one for each seed: a repeated run is no second measurement."""
        first: dict[str, Trial] = {}
        for trial in self.trials:
            if trial.counts:
                first.setdefault(key(trial.seed), trial)
        return list(first.values())

    @property
    def values(self) -> list[float]:
        return [trial.value for trial in self.counted]

    @property
    def mean(self) -> float:
        """Of `values`, of which there must be one at least."""
        return statistics.fmean(self.values)


@dataclass
class Part:
    """One script with the values that were searched for it.

    params: for each name a list of values, or {"low", "high", "log"} for a range. flags: for each
    name {"flag", "off", "is_switch"} as pathlab.sweep.parser finds them; may be empty.
    """

    name: str
    script: str
    params: dict[str, list | dict]
    fixed: dict[str, object]
    metric: str
    maximize: bool
    seeds: list
    flags: dict[str, dict]
    trials: list[Trial] = field(default_factory=list)

    def configurations(self) -> list[Configuration]:
        """All configurations that have a trial; the measured ones first, best mean first."""
        found: dict[str, Configuration] = {}
        for trial in self.trials:
            found.setdefault(key(trial.params), Configuration(trial.params)).trials.append(trial)
        sign = -1 if self.maximize else 1
        return sorted(
            found.values(), key=lambda c: (not c.values, c.values and sign * c.mean, c.number)
        )

    def varied(self) -> list[str]:
        """Names of the parameters of which more than one value was asked for or tried."""
        tried = {
            name: {key(v) for v in values} for name, values in self.params.items()
        }  # or a range
        for trial in self.trials:
            for name, value in trial.params.items():
                tried.setdefault(name, set()).add(key(value))
        return [name for name, values in tried.items() if len(values) > 1]

    def values_of(self, name: str, trials: list[Trial]) -> list:
        """The distinct values of a parameter in `trials`, in the order that was asked for."""
        used = {key(t.params[name]): t.params[name] for t in trials if name in t.params}
        asked = [key(value) for value in self.params.get(name, [])]  # a range's keys match nothing
        return [used.pop(k) for k in asked if k in used] + list(used.values())

    def planned(self, sweep: "Sweep") -> int | None:
        """The most trials this part can have, or None where that is not known."""
        counts = [sweep.trials] if sweep.trials is not None else []
        if all(isinstance(values, list) for values in self.params.values()):
            counts.append(math.prod(len(values) for values in self.params.values()))
        if not counts or (sweep.search != "grid" and sweep.trials is None):
            return None
        return min(counts) * max(1, len(self.seeds))

    def command(self, params: dict[str, object], seed: object) -> str:
        """The shell command that repeats a trial."""
        script = Path(self.script)
        if script.is_relative_to(Path.cwd()):
            script = script.relative_to(Path.cwd())
        words = ["python", str(script)]
        for name, value in {**self.fixed, **params, "seed": seed}.items():
            known = self.flags.get(name) or {}
            flag = str(known.get("flag") or "--" + name.replace("_", "-"))
            if value is None or value is False:
                words += [str(known["off"])] if value is False and known.get("off") else []
            elif value is True:
                words.append(flag)
            elif str(value).startswith("-"):  # argparse would take it for a flag
                words.append(f"{flag}={shown(value)}")
            else:
                words += [flag, shown(value)]
        return shlex.join(words)


@dataclass
class Sweep:
    """All parts of a sweep, and what could not be read."""

    name: str
    parts: list[Part]
    search: str
    trials: int | None
    pruner: str
    notes: list[str]
    unfinished: int  # trial folders without trial.json: running, or interrupted


def best(configurations: list[Configuration]) -> Configuration | None:
    """The best of `Part.configurations()` among those measured with the most seeds.

    Of twelve configurations, the one with a single lucky seed would often win otherwise.
    """
    most = max((len(c.values) for c in configurations), default=0)
    return next((c for c in configurations if most and len(c.values) == most), None)


def key(value: object) -> str:
    """Equal for equal JSON values, and only for them (1, 1.0, True and "1" all differ)."""
    return json.dumps(value, sort_keys=True)


def shown(value: object) -> str:
    """A JSON value as a person writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def brief(value: object) -> str:
    """As shown, but numbers drawn from a range with four digits only."""
    long = isinstance(value, float) and len(repr(value)) > 8
    return f"{value:.4g}" if long else shown(value)


def number(value: object) -> float | None:
    """A finite number from a file, or None. Beyond 1e150, its square would no longer be finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) < 1e150 else None


def metric_on_test(metric: str) -> str:
    """The name under which results.json has the metric on the test split."""
    return "test_" + metric.removeprefix("best_").removeprefix("val_")


def read_sweep(folder: Path) -> Sweep:
    """Read `folder`/sweep.json and `folder`/trials/*."""
    notes: list[str] = []
    config = _read_object(folder / "sweep.json", notes, needed=True)
    listed = config["parts"] if isinstance(config.get("parts"), list) else []
    parts = [part_of(entry) for entry in listed if isinstance(entry, dict)]
    sweep = Sweep(
        name=folder.resolve().name,
        parts=list({part.name: part for part in parts}.values()),
        search=str(config.get("search", "unknown")),
        trials=config["trials"] if isinstance(config.get("trials"), int) else None,
        pruner=str(config.get("pruner", "unknown")),
        notes=notes,
        unfinished=0,
    )
    for path in _folders(folder / "trials"):
        if (path / "trial.json").exists():
            _read_trial(path, sweep)
        else:
            sweep.unfinished += 1
    for part in sweep.parts:
        part.trials.sort(key=lambda t: (t.number is None, t.number or 0, key(t.seed)))
        lost = sum(t.state == "complete" and t.value is None for t in part.trials)
        if lost:
            notes.append(
                f"{part.name}: {lost} complete trials without a finite {part.metric} are listed, "
                "but counted nowhere."
            )
    return sweep


def part_of(entry: dict) -> Part:
    """A part from its entry in sweep.json. What the entry lacks is taken as empty."""
    name = str(entry.get("name", "unnamed"))
    params, fixed, flags = (
        entry[k] if isinstance(entry.get(k), dict) else {} for k in ("params", "fixed", "flags")
    )
    return Part(
        name=name,
        script=str(entry.get("script", f"{name}.py")),
        params={k: v if isinstance(v, (list, dict)) else [v] for k, v in params.items()},
        fixed=fixed,
        metric=str(entry.get("metric", "value")),
        maximize=entry.get("direction") != "minimize",
        seeds=entry["seeds"] if isinstance(entry.get("seeds"), list) else [],
        flags={k: v for k, v in flags.items() if isinstance(v, dict)},
    )


def _read_trial(path: Path, sweep: Sweep) -> None:
    """Add the trial in the folder `path` to its part."""
    entry = _read_object(path / "trial.json", sweep.notes)
    if not entry:
        return
    params, state, name = entry.get("params"), entry.get("state"), entry.get("part")
    if not (isinstance(name, str) and isinstance(params, dict) and state in STATES):
        sweep.notes.append(f"trials/{path.name}/trial.json lacks a part, params or a known state.")
        return
    part = next((part for part in sweep.parts if part.name == name), None)
    if part is None:
        part = part_of({"name": name})
        sweep.parts.append(part)
        sweep.notes.append(f"sweep.json has no part {name}: more of it is taken as better.")
    trial = trial_of(entry, path.name)
    trial.results = _read_object(path / "results.json", sweep.notes)
    trial.curve = _read_curve(path / "metrics.csv", part.metric, sweep.notes)
    part.trials.append(trial)


def trial_of(entry: dict, name: str) -> Trial:
    """A trial from its trial.json, which has params and a state, in the folder `name`."""
    value = number(entry.get("value"))
    return Trial(
        number=entry["number"] if isinstance(entry.get("number"), int) else None,
        seed=entry.get("seed"),
        params=entry["params"],
        state=entry["state"],
        value=None if value is None else float(value),
        seconds=number(entry.get("seconds")),
        error=TERMINAL_CODES.sub("", str(entry.get("error") or "")),
        name=name,
    )


def _read_curve(path: Path, metric: str, notes: list[str]) -> list[tuple[float, float]]:
    """(epoch, metric) of each row of metrics.csv that has both as finite numbers."""
    curve = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or []
            column = next((c for c in (metric.removeprefix("best_"), metric) if c in names), None)
            for count, row in enumerate(rows if column else (), start=1):
                epoch, value = _parsed(row.get("epoch", count)), _parsed(row[column])
                if epoch is not None and value is not None:
                    curve[epoch] = value
    except FileNotFoundError:
        pass
    except (OSError, ValueError, csv.Error) as error:
        notes.append(f"trials/{path.parent.name}/{path.name} cannot be read: {error}")
    return sorted(curve.items())


def _parsed(text: object) -> float | None:
    try:
        return number(float(text))
    except (TypeError, ValueError):
        return None


def _read_object(path: Path, notes: list[str], needed: bool = False) -> dict:
    """The JSON object in a file; {} with a note if there is none, silently if the file is not."""
    where = "sweep.json" if needed else f"trials/{path.parent.name}/{path.name}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            notes.append(f"{where} is missing.")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{where} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{where} is no JSON object.")
        return {}
    return value


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []
