"""How often a CNN passes the grader's 100-step threshold, and the rule of up to three trainings.

python -m benchmarks.threshold RUNS WIDTH [WIDTH ...]

WIDTH is the first block's channels of the plain three-block CNN (w, 2w, 4w; batch norm, max-pool,
flatten), or "reference" for CNNModel. Every run has fresh images, weights and order, as a grading
has. One thread.
"""

import sys
from math import comb

import numpy as np
import torch
from torch import nn

from classification_models import CNNModel
from pathlab.tissue import draw_split

STEPS, BATCH, HIDDEN, TARGET, SEEDS = 100, 32, 1000, 0.54, 3


def plain_cnn(width: int) -> nn.Module:
    layers, channels = [], 3
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * channels, 9))


def tissue(n: int, seed: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = draw_split(n, seed)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(
        labels
    )


def accuracy(make, run: int) -> float:
    torch.manual_seed(run)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, labels = tissue(STEPS * BATCH, [run, 1])
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    images, labels = tissue(HIDDEN, [run, 2])
    with torch.no_grad():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    runs = int(sys.argv[1])
    print(
        f"| CNN | mean | standard deviation | minimum | one training reaches {TARGET} | "
        f"one of {SEEDS} does | runs |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in sys.argv[2:]:
        make = CNNModel if name == "reference" else lambda width=name: plain_cnn(int(width))
        scores = np.array([accuracy(make, run) for run in range(runs)])
        failed = int((scores < TARGET).sum())
        # Over all ways to choose three different runs of these.
        rule = 1 - comb(failed, SEEDS) / comb(runs, SEEDS)
        print(
            f"| {name} | {scores.mean():.3f} | {scores.std(ddof=1):.3f} | {scores.min():.3f} | "
            f"{1 - failed / runs:.2f} | {rule:.4f} | {runs} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
