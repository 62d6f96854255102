"""What a sweep has left in its folder, as tables of pandas.

Nothing here raises for a damaged or missing file: it is left out, and `SweepFolder.notes` says so.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathlab.sweep.config import SWEEP, Part

STATES = ("complete", "failed", "pruned")
COLUMNS = ("part", "number", "seed", "params", "key", "state", "value", "seconds", "error")
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor moves in a log


@dataclass
class SweepFolder:
    """A sweep's parts, its trials that have ended, and what could not be read.

    trials: COLUMNS, of which key is equal for equal params and value is NaN where there is none;
    folder (its name), results (the content of results.json) and curve (see `read_curve`).
    """

    name: str
    parts: list[Part]
    about: dict[str, Any]  # search, trials, pruner
    trials: pd.DataFrame
    unfinished: int  # trial folders without trial.json: running, or interrupted
    notes: list[str]

    def trials_of(self, part: Part) -> pd.DataFrame:
        """The rows of one part by number of the configuration, then seed."""
        rows = self.trials[self.trials["part"] == part.name]
        order = pd.DataFrame({"number": rows["number"], "seed": rows["seed"].map(key)})
        return rows.loc[order.sort_values(["number", "seed"], kind="stable").index]

    def planned(self) -> int | None:
        """The most trials that the sweep can have, or None where that is not known."""
        asked, total = self.about.get("trials"), 0
        for part in self.parts:
            counts = (
                [] if part.has_ranges else [int(np.prod([len(v) for v in part.params.values()]))]
            )
            if isinstance(asked, int):
                counts.append(asked)
            elif self.about.get("search") != "grid" or not counts:
                return None
            total += min(counts) * max(1, len(part.seeds))
        return total or None


def each(table: pd.DataFrame) -> Iterable[Any]:
    """The rows, with the columns as attributes."""
    return table.itertuples()


def key(value: object) -> str:
    """Equal for equal JSON values, and only for them (1, 1.0, True and "1" all differ)."""
    return json.dumps(value, sort_keys=True)


def finite(value: Any) -> float | None:
    """A finite number, or None. Beyond 1e150, its square would no longer be finite."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e150 else None


def numbers_in(results: Iterable[dict[str, Any]], name: str) -> list[float]:
    """The finite numbers that results.json files have under a name."""
    return [number for r in results if (number := finite(r.get(name))) is not None]


def on_test(metric: str) -> str:
    """The name under which results.json has the metric on the test split."""
    return "test_" + metric.removeprefix("best_").removeprefix("val_")


def trial_table(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A row for each trial.json; they must have part, params and state."""
    rows = []
    for record in records:
        number, value = record.get("number"), finite(record.get("value"))
        rows.append(
            {
                **record,
                "number": number if isinstance(number, int) else -1,
                "seed": record.get("seed"),
                "key": key(record["params"]),
                "value": np.nan if value is None else float(value),
                "seconds": finite(record.get("seconds")),
                "error": TERMINAL_CODES.sub("", str(record.get("error") or "")),
            }
        )
    names = dict.fromkeys([*COLUMNS, "folder", "results", "curve"])
    table = pd.DataFrame(rows, columns=[*names], dtype=object)
    return table.astype({"number": int, "value": float})


def counted(trials: pd.DataFrame) -> pd.DataFrame:
    """The complete trials, one for each seed: a repeated run is no second measurement."""
    complete = trials[(trials["state"] == "complete") & trials["value"].notna()]
    again = pd.DataFrame({"key": complete["key"], "seed": complete["seed"].map(key)}).duplicated()
    return complete[~again]


def configurations(part: Part, trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each configuration, the best mean first, those without a complete trial last.

    Columns: key, number, params, values (a list), mean, sd, low, high, n.
    """
    groups = trials.groupby("key", sort=False)
    table = groups.agg(number=("number", "min"), params=("params", "first"))
    values = counted(trials).groupby("key")["value"]
    table = table.join(values.agg(["mean", "std", "min", "max", "count"]))
    table.columns = pd.Index(["number", "params", "mean", "sd", "low", "high", "n"])
    table["n"] = table["n"].fillna(0).astype(int)
    table["values"] = pd.Series({name: list(group) for name, group in values}, dtype=object)
    ascending = [part.direction == "minimize", True]
    return table.sort_values(["mean", "number"], ascending=ascending).reset_index()


def best(table: pd.DataFrame) -> pd.Series | None:
    """The best of `configurations` among those measured with the most seeds.

    Of twelve configurations, the one with a single lucky seed would often win otherwise.
    """
    most = table["n"].max() if len(table) else 0
    return table[table["n"] == most].iloc[0] if most > 0 else None


def varied(part: Part, trials: pd.DataFrame) -> list[str]:
    """Names of the parameters of which more than one value was asked for or tried."""
    tried = {name: {key(value) for value in values} for name, values in part.params.items()}
    for params in trials["params"]:
        for name, value in params.items():
            tried.setdefault(name, set()).add(key(value))
    return [name for name, values in tried.items() if len(values) > 1]


def values_of(part: Part, name: str, table: pd.DataFrame) -> list[Any]:
    """The distinct values of a parameter in `params`, in the order that was asked for."""
    used = {key(params[name]): params[name] for params in table["params"] if name in params}
    asked = [key(value) for value in part.params.get(name, [])]  # a range's keys match nothing
    return [used.pop(k) for k in asked if k in used] + list(used.values())


def ablation(part: Part, table: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """The measured configurations that differ from the best one in one parameter."""
    chosen, rows = best(table), []
    if chosen is None:
        return []
    measured = table[table["n"] > 0].set_index("key", drop=False)
    for name in names:
        for value in values_of(part, name, measured) if name in chosen["params"] else ():
            other = key({**chosen["params"], name: value})
            if other in measured.index and other != chosen["key"]:
                row = measured.loc[other]
                change = {"name": name, "was": chosen["params"][name], "is": value}
                rows.append({**row, **change, "difference": row["mean"] - chosen["mean"]})
    return rows


def read_sweep(folder: Path) -> SweepFolder:
    """Read `folder`/sweep.json and `folder`/trials/*."""
    notes: list[str] = []
    about = _read_object(folder / SWEEP, SWEEP, notes)
    if not (folder / SWEEP).exists():
        notes.append(f"{SWEEP} is missing.")
    listed = about["parts"] if isinstance(about.get("parts"), list) else []
    read = [Part.from_record(entry) for entry in listed if isinstance(entry, dict)]
    parts = {part.name: part for part in read}
    records, unfinished = [], 0
    for path in sorted((folder / "trials").glob("[!.]*/")):
        if not (path / "trial.json").exists():
            unfinished += path.is_dir()
        elif record := _read_trial(path, parts, notes):
            records.append(record)
    trials = trial_table(records)
    lost = trials[(trials["state"] == "complete") & trials["value"].isna()]
    for name, count in lost["part"].value_counts().items():
        notes.append(
            f"{name}: {count} complete trials without a finite {parts[str(name)].metric} are "
            "listed, but counted nowhere."
        )
    return SweepFolder(
        folder.resolve().name, list(parts.values()), about, trials, unfinished, notes
    )


def _read_trial(path: Path, parts: dict[str, Part], notes: list[str]) -> dict[str, Any] | None:
    """trial.json with what stands beside it. Adds a part that nothing is known of."""
    where = f"trials/{path.name}"
    record = _read_object(path / "trial.json", f"{where}/trial.json", notes)
    name = record.get("part")
    if record and not (
        isinstance(name, str)
        and isinstance(record.get("params"), dict)
        and record.get("state") in STATES
    ):
        notes.append(f"{where}/trial.json lacks a part, params or a known state.")
        return None
    if not record or not isinstance(name, str):
        return None
    if name not in parts:
        parts[name] = Part.from_record({"name": name})
        notes.append(f"{SWEEP} has no part {name}: assuming higher is better.")
    results = _read_object(path / "results.json", f"{where}/results.json", notes)
    curve = read_curve(path / "metrics.csv", parts[name].metric, notes)
    return {**record, "folder": path.name, "results": results, "curve": curve}


def read_curve(path: Path, metric: str, notes: list[str]) -> dict[float, float]:
    """The metric by epoch, from the rows of metrics.csv that have both as finite numbers."""
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # of pandas, too
        notes.append(f"trials/{path.parent.name}/{path.name} cannot be read: {error}")
        return {}
    column = next((c for c in (metric.removeprefix("best_"), metric) if c in table), None)
    if column is None:
        return {}
    epochs = table["epoch"] if "epoch" in table else pd.Series(range(1, len(table) + 1))
    both = pd.DataFrame({"epoch": epochs, "value": table[column]})
    both = both.apply(pd.to_numeric, errors="coerce").dropna()
    both = both[both.abs().max(axis=1) < 1e150].sort_values("epoch", kind="stable")
    return dict(zip(both["epoch"], both["value"], strict=True))


def _read_object(path: Path, where: str, notes: list[str]) -> dict[str, Any]:
    """The JSON object in a file; {} with a note if there is none, silently if the file is not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{where} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{where} should hold a JSON object.")
        return {}
    return value
