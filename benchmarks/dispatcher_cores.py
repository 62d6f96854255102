"""How busy a 24-trial grid over both mains keeps two cores.

python -m benchmarks.dispatcher_cores

From the first trial's start to the last one's end: the share of two slots' time in which a trial
ran, and the share of two cores' time that this machine was not idle (/proc/stat; run nothing else).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
# The long ones first, as one orders any list that several hands work on.
FIXED = {"dataset": "synthetic", "max_steps": 50, "no_plots": True, "learning_rate": [0.001, 0.003]}
PARTS = [
    {"script": "segmentation_main.py", "params": {"model": ["unet", "cnn", "mlp"], **FIXED}},
    {"script": "classification_main.py", "params": {"model": ["cnn", "mlp", "linear"], **FIXED}},
]


def idle_and_all() -> tuple[int, int]:
    """Clock ticks of all cores since boot (proc(5))."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return ticks[3] + ticks[4], sum(ticks)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.json").write_text(json.dumps({"parts": PARTS}))
        arguments = ["--config", folder / "sweep.json", "--output-dir", folder / "out"]
        arguments += ["--workers", 2, "--seeds", 2]
        command = [sys.executable, REPO / "dispatcher.py", *map(str, arguments)]
        sweep = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL)
        samples = []  # (seconds since the epoch, idle, all)
        while sweep.poll() is None:
            samples.append((time.time(), *idle_and_all()))
            time.sleep(0.1)
        ends = []
        for path in (folder / "out").glob("trials/*/trial.json"):
            trial = json.loads(path.read_text())
            assert trial["state"] == "complete", trial
            ends.append((path.stat().st_mtime, trial["seconds"]))
    first, last = min(end - seconds for end, seconds in ends), max(end for end, _ in ends)
    busy = sum(seconds for _, seconds in ends) / (2 * (last - first))
    inside = [sample for sample in samples if first <= sample[0] <= last]
    idle, total = (inside[-1][i] - inside[0][i] for i in (1, 2))
    print(
        f"{len(ends)} trials in {last - first:.0f} s: slots busy {busy:.3f}, "
        f"cores busy {1 - idle / total:.3f}"
    )


if __name__ == "__main__":
    main()
