"""How long a training step takes with threads that spin or sleep while they wait.

python -m benchmarks.wait_policy

Two threads train the CNN on batches of 32, alone and beside another program that keeps one core
busy; spinning (OMP_WAIT_POLICY=ACTIVE) and sleeping (PASSIVE) alternate, five processes each.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

REPO = Path(__file__).resolve().parents[1]
STEPS = """
import time, torch
from classification_models import CNNModel
torch.set_num_threads(2)
model, images, seconds = CNNModel(), torch.rand(32, 3, 28, 28), []
for _ in range(25):
    began = time.perf_counter()
    model(images).square().mean().backward()
    seconds.append(time.perf_counter() - began)
print(sorted(seconds[5:])[10])
"""


def step_seconds(policy: str) -> float:
    """Median of 20 steps in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        cwd=REPO,
        env={**os.environ, "OMP_WAIT_POLICY": policy},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    print(
        "| neighbour | spinning, ms a step | sleeping, ms a step | n |\n| --- | --- | --- | --- |"
    )
    for neighbour in ("none", "one busy core"):
        busy = None
        if neighbour != "none":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            pairs = [(step_seconds("ACTIVE"), step_seconds("PASSIVE")) for _ in range(5)]
        finally:
            if busy:
                busy.kill()
        cells = [
            f"{1e3 * median(v):.0f} ({1e3 * min(v):.0f} to {1e3 * max(v):.0f})"
            for v in zip(*pairs, strict=True)
        ]
        print(f"| {neighbour} | {' | '.join(cells)} | 5 |", flush=True)


if __name__ == "__main__":
    main()
