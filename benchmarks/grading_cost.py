"""What full gradings of a submission cost, all processes together. Linux.

python -m benchmarks.grading_cost RUNS SUBMISSION [option of pytest grader ...]

Memory is the sum of what all processes hold at one moment (proportional set size: a page that two
of them share counts once), looked at five times a second. CPU seconds are those of the trusted
process, and those that it counts for the submission's.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autograde.sandbox.processes import TICKS, look, proportional, tree

REPO = Path(__file__).resolve().parents[1]


def own_cpu_seconds(pid: int) -> float:
    """Without those of its children (proc(5): utime and stime); 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    runs, submission, *options = int(sys.argv[1]), *sys.argv[2:]
    print("| score | CPU s, trusted | CPU s, submission | MiB, all together | wall s |")
    print("| --- | --- | --- | --- | --- |")
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.json"
            began, peak, trusted = time.monotonic(), 0, 0.0
            command = [sys.executable, "-m", "pytest", "-q", "grader", f"--results={results}"]
            command += [f"--submission={Path(submission).resolve()}", *options]
            grading = subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL)
            while grading.poll() is None:
                seen = {pid: found for pid in tree(grading.pid) if (found := look(pid))}
                peak = max(peak, sum(proportional(pid, found) for pid, found in seen.items()))
                trusted = own_cpu_seconds(grading.pid) or trusted
                time.sleep(0.2)
            wall, graded = time.monotonic() - began, json.loads(results.read_text())
        used = re.search(r"(\d+) CPU seconds", graded["output"])[1]
        score, trusted = graded["score"], round(trusted)
        print(f"| {score:g} | {trusted} | {used} | {peak >> 20} | {wall:.0f} |", flush=True)
        for test in graded["tests"]:
            if test["score"] < test["max_score"]:
                print(f"{test['number']} {test['name']}: {test['output']}", file=sys.stderr)


if __name__ == "__main__":
    main()
