"""A script to sweep over, quick and without torch: tests/test_dispatcher.py copies it.

Its value is (1 - (x - 0.3)^2) + 0.1 for the model "b" + 0.001 * seed, reached in ten epochs.
"""

import argparse
import csv
import json
import os
import signal
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=["a", "b"], default="a")
    parser.add_argument("--x", "--x_value", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--nap", type=float, default=0.01, help="seconds an epoch")
    parser.add_argument("--end", choices=["well", "raise", "segfault", "kill", "hang"])
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--bias", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    out = args.output_dir
    print("started", "by", os.getppid(), args, flush=True)
    value = 1 - (args.x - 0.3) ** 2 + 0.1 * (args.model == "b") + 0.001 * args.seed
    (out / "config.json").write_text("{}")
    done = []
    if args.resume and (out / "metrics.csv").exists():
        with open(out / "metrics.csv", newline="") as file:
            done = [float(row["value"]) for row in csv.DictReader(file)]
    for epoch in range(len(done), args.epochs):
        time.sleep(args.nap)
        done.append(value * (epoch + 1) / args.epochs)
        text = "epoch,value\n" + "".join(f"{n},{v!r}\n" for n, v in enumerate(done, start=1))
        (out / ".metrics.tmp").write_text(text)
        os.replace(out / ".metrics.tmp", out / "metrics.csv")
    if args.end == "raise":
        raise ValueError("a mistake in the script")
    if args.end == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if args.end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if args.end == "hang":
        time.sleep(1000)
    results = {"model": args.model, "best_value": done[-1], "seed": args.seed}
    (out / ".results.tmp").write_text(json.dumps(results))
    os.replace(out / ".results.tmp", out / "results.json")


if __name__ == "__main__":
    main()
