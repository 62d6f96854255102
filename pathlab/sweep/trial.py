"""One trial: a script run once, with what became of it in its folder's trial.json."""

import contextlib
import json
import math
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathlab.files import locked, make_folder, write_json
from pathlab.sweep.scripts import Script, run_script

TRIAL, LOG = "trial.json", "log.txt"
RESULTS, METRICS, CONFIG = "results.json", "metrics.csv", "config.json"
COMPLETE, FAILED, PRUNED, STOPPED = "complete", "failed", "pruned", "stopped"
TAIL_LINES, TAIL_BYTES = 20, 4000  # of the log, for a trial that failed


@dataclass(frozen=True)
class Trial:
    """What is to run. Plain values only: it may travel to another machine."""

    part: str
    number: int  # of the configuration within its part
    seed: int | None
    params: dict[str, Any]
    metric: str
    script: str
    arguments: list[str]
    folder: str
    cwd: str
    threads: int
    resumable: bool  # the script takes --resume

    @property
    def stop_file(self) -> Path:
        """Asks the trial to stop. Beside the folder, which a trial that begins makes anew."""
        folder = Path(self.folder)
        return folder.with_name(f".{folder.name}.stop")

    def stop(self, why: str) -> None:
        """Ask the trial to stop, wherever it runs. why: PRUNED or STOPPED."""
        self.stop_file.parent.mkdir(parents=True, exist_ok=True)
        self.stop_file.write_text(why)


def run_trial(trial: Trial) -> dict[str, Any]:
    """Run the script and return the content of trial.json.

    Raises nothing for what the script does. A trial that was asked to stop is "pruned", or
    "stopped" and then has no trial.json: the next run of the sweep takes it up again. One that has
    ended already is not run again.
    """
    folder = Path(trial.folder)
    running = folder.with_name(f".{folder.name}.running.lock")
    with locked(folder):  # a job of a dispatcher that was killed may still go on
        with locked(folder.with_name(f"{folder.name}.running")):
            pass  # so may its script, for a moment
        ended = read_trial(folder)
        if ended and ended["state"] in (COMPLETE, PRUNED):
            return ended
        with contextlib.suppress(FileNotFoundError):
            (folder / TRIAL).unlink()
        arguments = [*trial.arguments, f"--output-dir={folder}"]
        if trial.resumable and (folder / CONFIG).exists():
            arguments.append("--resume")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        log, cwd = folder / LOG, Path(trial.cwd)
        script = Script(Path(trial.script), arguments, log, running, cwd, trial.threads)
        began = time.monotonic()
        code = run_script(script, trial.stop_file.exists)
        seconds = time.monotonic() - began
        return _ended(trial, folder, code, seconds)


def _ended(trial: Trial, folder: Path, code: int, seconds: float) -> dict[str, Any]:
    state, value, error = COMPLETE, None, None
    with contextlib.suppress(FileNotFoundError):
        state = trial.stop_file.read_text() if code else COMPLETE
        trial.stop_file.unlink()
    if state == COMPLETE and code:
        state, error = FAILED, f"{_meaning(code)}\n{_tail(folder / LOG)}".strip()
    elif state == COMPLETE:
        value, error = _value(folder / RESULTS, trial.metric)
        state = FAILED if error else COMPLETE
    return write_outcome(trial, state, value, seconds, error)


def write_outcome(
    trial: Trial, state: str, value: float | None, seconds: float, error: str | None
) -> dict[str, Any]:
    """Write trial.json, unless the trial was stopped, and return what it holds."""
    folder = Path(trial.folder)
    about = {name: asdict(trial)[name] for name in ("part", "number", "seed", "params")}
    about |= {"state": state, "value": value, "seconds": round(seconds, 3), "error": error}
    about |= {"folder": folder.name}
    if state != STOPPED:
        make_folder(folder)
        write_json(folder / TRIAL, about)
    return about


def read_trial(folder: Path) -> dict[str, Any] | None:
    """trial.json, or None where the trial has not ended."""
    try:
        found = json.loads((folder / TRIAL).read_text())
        return found if isinstance(found, dict) and "state" in found else None
    except (OSError, ValueError):
        return None


def _tail(log: Path) -> str:
    """The last lines of a log, as text."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rsplit("\r", 1)[-1] for line in text.splitlines()]  # of progress bars, the last
    return "\n".join(lines[-TAIL_LINES:])


def _value(results: Path, metric: str) -> tuple[float | None, str | None]:
    """(the metric, None) or (None, what is wrong)."""
    try:
        found = json.loads(results.read_text())
    except (OSError, ValueError) as error:
        return None, f"it ended well, but {results.name} cannot be read: {error}"
    if not isinstance(found, dict):
        return None, f"{results.name} should hold an object with {metric!r}, not {found!r:.40}"
    value: Any = found.get(metric)
    if type(value) in (int, float) and math.isfinite(value):
        return float(value), None
    if metric in found:
        return None, f"its {metric} is {value!r}, not a number"
    numbers = sorted(n for n, v in found.items() if type(v) in (int, float))
    return None, f"{NO_METRIC} {metric!r}; it has {', '.join(numbers)}"


NO_METRIC = "results.json has no"  # the sweep ends when the first trial says so


def _meaning(code: int) -> str:
    """An exit code in words."""
    if code <= 128:
        return f"It ended with exit code {code}."
    with contextlib.suppress(ValueError):
        name = signal.Signals(code - 128).name
        hint = " (out of memory, or killed by hand)" if name == "SIGKILL" else ""
        return f"It was ended by {name}{hint}."
    return f"It ended with exit code {code}."
