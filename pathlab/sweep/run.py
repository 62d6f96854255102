"""The loop that keeps all workers busy until every configuration has run with every seed."""

import contextlib
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from tqdm import tqdm

from pathlab.errors import UserError
from pathlab.files import write_atomically
from pathlab.sweep import tables
from pathlab.sweep.config import Part
from pathlab.sweep.search import Configuration, Search
from pathlab.sweep.trial import (
    COMPLETE,
    FAILED,
    METRICS,
    NO_METRIC,
    PRUNED,
    STOPPED,
    Trial,
    read_trial,
    run_trial,
    write_outcome,
)

STUDY, TABLE, TRIALS = "study.log", "results.csv", "trials"
STOP_SECONDS = 10  # that running trials are given to end
POLL_SECONDS = 0.5  # between two looks at the running trials' epochs
SHOW_SECONDS = 1.0  # between two changes of the progress bar's text
LOG_SECONDS = 30.0  # the same in a log file, which gets two lines a minute

Row = dict[str, Any]  # trial.json's content


class Sweep:
    """A sweep in its folder.

    prunes: whether the searches may stop a trial early. slots: the devices to use, one for each
    trial that runs at a time; None leaves the device to the script. threads: of each trial.
    """

    def __init__(
        self,
        folder: Path,
        searches: list[Search],
        prunes: bool,
        slots: list[str | None],
        threads: int,
    ):
        self.folder, self.searches, self.prunes, self.threads = folder, searches, prunes, threads
        self.parts = [search.part for search in searches]
        self.free = list(slots)
        self.rows: dict[str, Row] = {}  # by the trial's folder
        self.waiting: list[tuple[Configuration, int | None]] = []
        self.running: dict[Future[Row], tuple[Configuration, Trial, str | None]] = {}
        self.left = list(searches)
        for path in sorted((folder / TRIALS).glob("*/")):
            if row := read_trial(path):
                self.rows[row["folder"]] = row
        self.earlier = dict(self.rows)
        ended = [row for row in self.rows.values() if row["state"] in (COMPLETE, PRUNED)]
        for search in searches:
            search.resume(Counter(r["number"] for r in ended if r["part"] == search.part.name))
        self._write_table()

    @property
    def total(self) -> int:
        """The most trials that the sweep can have."""
        return sum(len(s.part.seeds or [None]) * s.total for s in self.searches)

    def run(self, engine: Executor) -> None:
        """Run all that is missing. Ctrl-C (raised as KeyboardInterrupt) and UserError stop the
        running trials, which the next run takes up again where they were."""
        self.shown = 0.0
        with self._progress() as self.bar, _hold_interrupts() as asked_to_stop:
            try:
                self._fill(engine)
                while self.running:
                    if asked_to_stop():
                        raise KeyboardInterrupt
                    ended, _ = wait(self.running, POLL_SECONDS, FIRST_COMPLETED)
                    done = [(*self.running.pop(future), future) for future in ended]
                    self.free += [slot for _, _, slot, _ in done]
                    self._fill(engine)  # before the paperwork
                    for configuration, trial, _, future in done:
                        self._end(configuration, trial, _outcome(trial, future))
                    if done:
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
            if fresh := self.left[0].next():
                self._take_earlier(fresh)
            else:
                self.left.pop(0)

    def _take_earlier(self, configuration: Configuration) -> None:
        """Queue what is missing of a configuration; count what an earlier run has finished."""
        for seed in configuration.seeds:
            row = self.earlier.get(configuration.trial_name(seed))
            if row and row["state"] in (COMPLETE, PRUNED):
                configuration.ended[seed] = row
                configuration.pruned |= row["state"] == PRUNED
            else:
                self.waiting.append((configuration, seed))
        self._tell_if_ended(configuration)

    def _trial(self, configuration: Configuration, seed: int | None, slot: str | None) -> Trial:
        part = configuration.search.part
        arguments = part.arguments(configuration.params, seed)
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
            folder=str(self.folder / TRIALS / configuration.trial_name(seed)),
            cwd=str(Path.cwd()),
            threads=self.threads,
            resumable=part.resumable,
        )

    # ---- what has ended ----

    def _end(self, configuration: Configuration, trial: Trial, outcome: Row) -> None:
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
            curve = tables.read_curve(Path(trial.folder) / METRICS, trial.metric, [])
            values = list(curve.values())
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

    def _progress(self) -> tqdm:
        done = sum(row["state"] != FAILED for row in self.rows.values())
        return tqdm(
            total=self.total,
            initial=done,
            unit="trial",
            dynamic_ncols=True,
            smoothing=0.1,
            mininterval=0.2 if sys.stderr.isatty() else LOG_SECONDS,
        )

    def _show(self) -> None:
        pause = SHOW_SECONDS if sys.stderr.isatty() else LOG_SECONDS
        if self.shown and self.running and time.monotonic() - self.shown < pause:
            return
        self.shown = time.monotonic()
        states = Counter(row["state"] for row in self.rows.values())
        found = [self.best(part) for part in self.parts]
        best = " / ".join("-" if b is None else f"{b['mean']:.4f}" for b in found)
        counts = [f", {states[state]} {state}" for state in (FAILED, PRUNED) if states[state]]
        text = f"best {best}, {len(self.running)} running{''.join(counts)}"
        self.bar.set_postfix_str(text, refresh=sys.stderr.isatty())

    def best(self, part: Part) -> pd.Series | None:
        """The best configuration of a part, as the report chooses it: a row of
        pathlab.sweep.tables.configurations. None before any is complete."""
        rows = [row for _, row in sorted(self.rows.items()) if row["part"] == part.name]
        return tables.best(tables.configurations(part, tables.trial_table(rows)))

    def _write_table(self) -> None:
        """results.csv: a row for each trial that has ended, in the order of their numbers."""
        params = list(dict.fromkeys(name for part in self.parts for name in part.params))
        metrics = list(dict.fromkeys(part.metric for part in self.parts))
        several, seeds = len(self.parts) > 1, any(part.seeds for part in self.parts)
        columns = [*["part"] * several, "trial", *params, *["seed"] * seeds, *metrics]
        metric_of = {part.name: part.metric for part in self.parts}
        lines = [
            {**row, "trial": row["number"], **row["params"], metric_of[row["part"]]: row["value"]}
            for _, row in sorted(self.rows.items())
        ]
        table = pd.DataFrame(lines, columns=[*columns, "state", "seconds"], dtype=object)
        write_atomically(self.folder / TABLE, table.to_csv(index=False).encode())


@contextlib.contextmanager
def _hold_interrupts() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed, or SIGTERM came: the loop asks where it can
    be stopped, so that neither the journal nor a table is left half-written. The second Ctrl-C
    is obeyed at once."""
    asked = threading.Event()

    def handle(signum: int, frame: object) -> None:
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


def _outcome(trial: Trial, future: Future[Row]) -> Row:
    """What run_trial returned; a failure where the engine lost the call, say with its machine."""
    try:
        return future.result()
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return write_outcome(trial, FAILED, None, 0.0, f"The engine lost it: {lines[0][:500]}")
