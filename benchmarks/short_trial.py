"""A training of a fifth of a second, for benchmarks/dispatcher_overhead.py to run many of.

python -m benchmarks.short_trial --learning-rate 0.01 --output-dir DIR
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

STEPS = 300


def train(learning_rate: float) -> dict[str, float]:
    """{"loss", "own_seconds"} of a small regression."""
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 64, generator=generator)
    y = x[:, :8].square().sum(1, keepdim=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    return {"loss": loss.item(), "own_seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args()
    results = train(args.learning_rate)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
