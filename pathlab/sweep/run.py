"""The loop that keeps all workers busy until every configuration has run with every seed."""

import contextlib
import csv
import io
import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from tqdm import tqdm

from pathlab.errors import UserError
from pathlab.files import write_atomically, write_json
from pathlab.sweep import report_data
from pathlab.sweep.config import Part
from pathlab.sweep.parser import command_line
from pathlab.sweep.search import Search
from pathlab.sweep.trial import (
    COMPLETE,
    FAILED,
    NO_METRIC,
    PRUNED,
    STOPPED,
    Trial,
    epochs,
    read_trial,
    run_trial,
    write_outcome,
)

SWEEP, STUDY, TABLE, TRIALS = "sweep.json", "study.log", "results.csv", "trials"
STOP_SECONDS = 10  # that running trials are given to end
POLL_SECONDS = 0.5  # between two looks at the running trials' epochs


@dataclass
class Configuration:
    """One set of parameters, and its trials: one for each seed."""

    search: Search
    number: int
    params: dict
    ended: dict[int | None, dict] = field(default_factory=dict)  # trial.json's content, by seed
    pruned: bool = False

    @property
    def seeds(self) -> list[int | None]:
        return self.search.part.seeds or [None]


class Sweep:
    """A sweep in its folder.

    slots: the devices to use, one for each trial that runs at a time; None leaves the device to the
    script. Raises UserError for a folder that holds another sweep.
    """

    def __init__(
        self,
        folder: Path,
        parts: list[Part],
        searches: list[Search],
        about: dict,
        slots: list[str | None],
        threads: int,
    ):
        self.folder, self.parts, self.searches = folder, parts, searches
        self.free, self.threads = list(slots), threads
        self.prunes = about["pruner"] != "none"
        self.rows: dict[str, dict] = {}  # trial.json's content, by folder's name
        self.waiting: list[tuple[Configuration, int | None]] = []
        self.running: dict[Future, tuple[Configuration, Trial, str | None]] = {}
        self.left = list(searches)
        self.earlier = self._read_rows()
        ended = [row for row in self.rows.values() if row["state"] in (COMPLETE, PRUNED)]
        for search in searches:
            search.resume(Counter(r["number"] for r in ended if r["part"] == search.part.name))
        self._write_table()

    @property
    def total(self) -> int:
        return sum(len(s.part.seeds or [None]) * s.total for s in self.searches)

    def run(self, engine: Executor) -> None:
        """Run all that is missing. Ctrl-C (raised as KeyboardInterrupt) and UserError stop the
        running trials, which the next run takes up again where they were."""
        with self._bar() as self.bar, _interrupts_held() as asked_to_stop:
            try:
                self._fill(engine)
                while self.running:
                    if asked_to_stop():
                        raise KeyboardInterrupt
                    ended, _ = wait(self.running, POLL_SECONDS, FIRST_COMPLETED)
                    told = [(*self.running.pop(future), future) for future in ended]
                    self.free += [slot for _, _, slot, _ in told]
                    self._fill(engine)  # before the paperwork
                    for configuration, trial, _, future in told:
                        self._end(configuration, trial, _outcome(trial, future))
                    if told:
                        self._write_table()
                    self._fill(engine)  # where a pruned configuration has kept others waiting
                    if self.prunes:
                        self._prune()
                    self._show()
            except BaseException:
                self._stop()
                raise

    # ---- what runs next ----

    def _fill(self, engine: Executor) -> None:
        while self.free and (following := self._next()):
            configuration, seed = following
            slot = self.free.pop(0)
            trial = self._trial(configuration, seed, slot)
            trial.stop_file.unlink(missing_ok=True)
            self.running[engine.submit(run_trial, trial)] = (configuration, trial, slot)

    def _next(self) -> tuple[Configuration, int | None] | None:
        while True:
            while self.waiting:
                configuration, seed = self.waiting.pop(0)
                if not configuration.pruned:
                    return configuration, seed
                self.bar.total -= 1
            if not self.left:
                return None
            found = self.left[0].next()
            if found is None:
                self.left.pop(0)
                continue
            configuration = Configuration(self.left[0], *found)
            self._take_earlier(configuration)

    def _take_earlier(self, configuration: Configuration) -> None:
        """Queue what is missing of a configuration; count what an earlier run has finished."""
        for seed in configuration.seeds:
            row = self.earlier.get(self._name(configuration, seed))
            if row and row["state"] in (COMPLETE, PRUNED):
                configuration.ended[seed] = row
                configuration.pruned |= row["state"] == PRUNED
            else:
                self.waiting.append((configuration, seed))
        self._tell_if_ended(configuration)

    def _name(self, configuration: Configuration, seed: int | None) -> str:
        name = f"{configuration.search.part.name}-{configuration.number:04d}"
        return name if seed is None else f"{name}-seed{seed}"

    def _trial(self, configuration: Configuration, seed: int | None, slot: str | None) -> Trial:
        part = configuration.search.part
        arguments = command_line(part, configuration.params, seed)
        if slot is not None:
            arguments.append(f"--device={slot}")
        return Trial(
            part=part.name,
            number=configuration.number,
            seed=seed,
            params=configuration.params,
            metric=part.metric,
            script=str(part.script),
            arguments=arguments,
            folder=str(self.folder / TRIALS / self._name(configuration, seed)),
            cwd=str(Path.cwd()),
            threads=self.threads,
            resumable=part.resumable,
        )

    # ---- what has ended ----

    def _end(self, configuration: Configuration, trial: Trial, outcome: dict) -> None:
        if outcome["state"] == STOPPED:  # by another dispatcher's leftover, never by this one
            self.waiting.append((configuration, trial.seed))
            return
        configuration.ended[trial.seed] = outcome
        self.rows[outcome["folder"]] = outcome
        if (outcome["error"] or "").startswith(NO_METRIC):
            raise UserError(
                f"{configuration.search.part.script.name} does not write the metric "
                f'{trial.metric!r}: {outcome["error"]}. Correct "metric", and take another '
                "--output-dir."
            )
        self.bar.update()
        self._tell_if_ended(configuration)

    def _tell_if_ended(self, configuration: Configuration) -> None:
        """Tell the search a configuration's mean when the last of its trials has ended."""
        ended = configuration.ended.values()
        if configuration.number not in configuration.search.open:
            return
        if configuration.pruned:
            configuration.search.tell(configuration.number, None, pruned=True)
        elif len(ended) == len(configuration.seeds):
            values = [row["value"] for row in ended]
            failed = any(row["state"] != COMPLETE for row in ended)
            configuration.search.tell(configuration.number, None if failed else fmean(values))

    def _prune(self) -> None:
        """Stop what runs worse than others did at the same epoch. The first seed speaks for all."""
        for configuration, trial, _ in self.running.values():
            if configuration.pruned or trial.seed != configuration.seeds[0]:
                continue
            values = epochs(Path(trial.folder), trial.metric)
            if values and configuration.search.should_prune(configuration.number, values):
                configuration.pruned = True
        for configuration, trial, _ in self.running.values():
            if configuration.pruned:
                trial.stop(PRUNED)

    def _stop(self) -> None:
        for future, (_, trial, _) in self.running.items():
            if not future.cancel():
                trial.stop(STOPPED)
        ended, _ = wait(self.running, STOP_SECONDS)
        for future in ended:
            if not future.cancelled() and not future.exception():
                row = future.result()
                if row["state"] != STOPPED:
                    self.rows[row["folder"]] = row
        self._write_table()

    # ---- what is seen ----

    def _bar(self) -> tqdm:
        done = sum(row["state"] != FAILED for row in self.rows.values())
        seen = sys.stderr.isatty()
        return tqdm(
            total=self.total,
            initial=done,
            unit="trial",
            dynamic_ncols=True,
            smoothing=0.1,
            mininterval=0.2 if seen else 30,  # a log file gets two lines a minute
        )

    def _show(self) -> None:
        states = [row["state"] for row in self.rows.values()]
        best = [f"{b.mean:.4f}" if (b := self.best(part)) else "-" for part in self.parts]
        text = f"best {' / '.join(best)}, {len(self.running)} running"
        for state in (FAILED, PRUNED):
            if state in states:
                text += f", {states.count(state)} {state}"
        self.bar.set_postfix_str(text, refresh=sys.stderr.isatty())

    def best(self, part: Part) -> report_data.Configuration | None:
        """The best configuration of a part, as the report chooses it. None before any is
        complete."""
        told = report_data.part_of(part.about())
        told.trials = [
            report_data.trial_of(row, folder)
            for folder, row in sorted(self.rows.items())
            if row["part"] == part.name
        ]
        return report_data.best(told.configurations())

    def _read_rows(self) -> dict[str, dict]:
        for folder in sorted((self.folder / TRIALS).glob("*/")):
            if row := read_trial(folder):
                self.rows[row["folder"]] = row
        return dict(self.rows)

    def _write_table(self) -> None:
        """results.csv: a row for each trial that has ended, in the order of their numbers."""
        params = list(dict.fromkeys(name for part in self.parts for name in part.params))
        metrics = list(dict.fromkeys(part.metric for part in self.parts))
        several, seeds = len(self.parts) > 1, any(part.seeds for part in self.parts)
        columns = [*["part"] * several, "trial", *params, *["seed"] * seeds, *metrics]
        columns += ["state", "seconds"]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        of = {part.name: part for part in self.parts}
        for _, row in sorted(self.rows.items()):
            value = {of[row["part"]].metric: row["value"]}
            writer.writerow({**row, "trial": row["number"], **row["params"], **value})
        write_atomically(self.folder / TABLE, text.getvalue().encode())


@contextlib.contextmanager
def _interrupts_held() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed, or SIGTERM came: the loop asks where it can
    be stopped, so that neither the journal nor a table is left half-written. The second Ctrl-C
    is obeyed at once."""
    asked = threading.Event()

    def handle(signum, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {kind: signal.signal(kind, handle) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _outcome(trial: Trial, future: Future) -> dict:
    """What run_trial returned; a failure where the engine lost the call, say with its machine."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return write_outcome(trial, FAILED, None, 0.0, f"The engine lost it: {lines[0][:500]}")


def remember(folder: Path, parts: list[Part], about: dict) -> None:
    """Write sweep.json, or make sure that it says the same as when the folder was begun.

    Another number of trials of a random or TPE search is the one change that an old folder allows.
    Raises UserError for any other; for another order of the parameters too, as the configurations
    are numbered by it.
    """
    path = folder / SWEEP
    now = json.loads(json.dumps({"parts": [part.about() for part in parts], **about}))
    if path.exists():
        try:
            before = json.loads(path.read_text())
            for part in before["parts"]:
                part.pop("flags", None)
            changed = [n for n in now if n != "trials" and before.get(n) != now[n]]
            if before.get("trials") != now["trials"] and now["search"] == "grid":
                changed.append("trials")
            if _names(before) != _names(now):
                changed.append("parts")
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); take another --output-dir."
            ) from error
        if changed:
            raise UserError(
                f"{folder} holds a sweep with other settings ({_difference(before, now)}). Undo "
                "the change to finish that sweep, or take another --output-dir."
            )
    for part, described in zip(parts, now["parts"], strict=True):
        described["flags"] = part.flags  # how the report spells its command lines
    write_json(path, now)


def _names(about: dict) -> list[list[str]]:
    """Each part's parameters in their order, which `==` of dicts does not see."""
    return [list(part["params"]) for part in about["parts"]]


def _difference(before: dict, now: dict) -> str:
    """The first settings that differ, in words."""
    for name in now:
        if name != "parts" and before.get(name) != now[name]:
            return f"{name} was {before.get(name)}, is {now[name]}"
    old = {part["name"]: part for part in before["parts"]}
    for part in now["parts"]:
        if part["name"] not in old:
            return f"the part {part['name']} is new"
        for key in part:
            was, is_now = old[part["name"]].get(key), part[key]
            if key == "params" and was == is_now and list(was) != list(is_now):
                return f"the order of params was {', '.join(was)}, is {', '.join(is_now)}"
            if was == is_now:
                continue
            if isinstance(was, dict) and isinstance(is_now, dict):
                for name in {**was, **is_now}:
                    if was.get(name) != is_now.get(name):
                        return f"{name} was {was.get(name)}, is {is_now.get(name)}"
            return f"{key} was {was}, is {is_now}"
    return "it had other parts"
