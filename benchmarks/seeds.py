"""Run one of the mains with several seeds and print its scores as a row of a Markdown table.

python -m benchmarks.seeds 3 segmentation_main.py --model unet --dataset FILE.npz

Everything after the number of seeds is the command. The runs' folders are temporary.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

REPO = Path(__file__).resolve().parents[1]


def main() -> None:
    seeds, script, *flags = int(sys.argv[1]), sys.argv[2], *sys.argv[3:]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            out = Path(folder) / str(seed)
            ending = ["--seed", str(seed), "--output-dir", str(out), "--no-plots"]
            subprocess.run(
                [sys.executable, str(REPO / script), *flags, *ending],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            results.append(json.loads((out / "results.json").read_text()))
            print(f"seed {seed}: {figures([results[-1]])}", file=sys.stderr, flush=True)
    print(f"| {script} {' '.join(flags)} | {figures(results)} | n = {seeds} |")


def figures(results: list[dict]) -> str:
    names = [n for n in results[0] if n.startswith(("best_val", "test_")) and n != "test_iou_std"]
    cells = []
    for name in (*names, "train_seconds"):
        values = [result[name] for result in results if result[name] is not None]
        if not values:
            continue
        digits = 0 if name == "train_seconds" else 4
        spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if values[1:] else ""
        cells.append(f"{name} {mean(values):.{digits}f}{spread}")
    return ", ".join(cells)


if __name__ == "__main__":
    main()
