"""Does a capstone trained by two processes (Lightning's DDP on the CPU) end as with one?

python -m benchmarks.two_processes SEEDS

Trains `cell_lines` on its drawn cells, each seed once in one process with batches of 16 and once in
two with batches of 8 each: every optimizer step sees as many images. Prints the best epoch's
validation scores.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import capstones  # noqa: F401  (torchvision, first)
from capstones.checkpoints import load_best
from capstones.drawings import draw_cell_lines
from pathlab.arguments import positive_int

FLAGS = (
    "--no-pretrained --backbone resnet10t --image-size 64 --epochs 10 --lr 1e-3 --accelerator cpu"
)
METRICS = ("balanced_accuracy", "auroc", "loss")


def main() -> None:
    seeds = positive_int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        draw_cell_lines(data)
        found = {1: [], 2: []}
        for seed in range(seeds):
            for processes in found:
                run = Path(folder, f"{processes}-{seed}")
                command = [sys.executable, "-m", "capstones", "cell_lines", "train", *FLAGS.split()]
                command += ["--data", str(data), "--run", str(run), "--seed", str(seed)]
                command += [
                    "--accelerator",
                    "cpu",
                    "--devices",
                    str(processes),
                    "--batch-size",
                    str(16 // processes),
                ]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                metrics = load_best(run, "efficientnet")["metrics"]
                found[processes].append(metrics)
                scores = ", ".join(f"{name} {metrics[name]:.4f}" for name in METRICS)
                print(f"seed {seed}, processes {processes}: {scores}", flush=True)
    print("\n| processes | " + " | ".join(METRICS) + " | seeds |\n| --- | --- | --- | --- | --- |")
    for processes, runs in found.items():
        cells = []
        for name in METRICS:
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        print(f"| {processes} | {' | '.join(cells)} | {seeds} |")


if __name__ == "__main__":
    main()
