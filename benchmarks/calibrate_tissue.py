"""Measures how hard the stand-in pictures of `pathlab.data.tissue` are for simple models.

    python -m benchmarks.calibrate_tissue --seeds 5 --steps 100      (from the repository root)

Draws 20,000 training and 4,000 validation pictures once, trains each model from scratch once per
seed (Adam, learning rate 1e-3, batch 32, pixels scaled to [-1, 1]) and prints a Markdown table of
the validation accuracy. About 10 s for the drawing and 10 s per seed on one x86 core.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from pathlab.data.tissue import CLASS_NAMES, draw_split

TRAIN_SIZE, VAL_SIZE = 20_000, 4_000
TRAIN_SEED, VAL_SEED = 1, 2
CLASSES = len(CLASS_NAMES)


def linear():
    """Flatten, Linear."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, CLASSES))


def mlp():
    """Linear layers 2352-512-256-9 with ReLU."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 28 * 28, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES),
    )


def blocks():
    """Three times Conv3x3 (padding 1), BatchNorm, ReLU, MaxPool2; channels 32, 64, 128."""
    layers = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return layers


def cnn_flat():
    """The three blocks, Flatten, Linear(128 * 3 * 3, 9)."""
    return nn.Sequential(*blocks(), nn.Flatten(), nn.Linear(128 * 3 * 3, CLASSES))


def cnn_average():
    """The three blocks, global average pool, Linear(128, 9)."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CLASSES)]
    return nn.Sequential(*blocks(), *head)


MODELS = {
    "linear": linear,
    "MLP 2352-512-256-9": mlp,
    "CNN, 3 blocks, flatten": cnn_flat,
    "CNN, 3 blocks, global average pool": cnn_average,
}


def load(n, seed):
    """n pictures as float32 [n, 3, 28, 28] in [-1, 1] and int64 labels [n]."""
    images, labels = draw_split(n, seed)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float()
    return pixels / 127.5 - 1, torch.from_numpy(labels)


@torch.no_grad()
def accuracy(model, pixels, labels):
    """Share of pictures whose largest logit is at the label, 0..1, in evaluation mode."""
    model.eval()
    batches = zip(pixels.split(500), labels.split(500), strict=True)
    hits = sum((model(x).argmax(1) == y).sum() for x, y in batches)
    return hits.item() / len(labels)


def train(make_model, train_set, steps, seed, batch=32):
    """A model trained for `steps` random batches; `seed` fixes its weights and its batches."""
    torch.manual_seed(seed)
    pixels, labels = train_set
    model = make_model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.randperm(len(labels))
    for step in range(steps):
        pick = order[torch.arange(step * batch, (step + 1) * batch) % len(labels)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels[pick]), labels[pick]).backward()
        optimizer.step()
    return model


def colour_statistics(pixels):
    """Mean and standard deviation of each colour channel, float32 [n, 6]."""
    return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], 1)


def colour_accuracy(train_set, val_set):
    """Validation accuracy of a logistic regression on colour statistics, fitted to the end."""
    features = colour_statistics(train_set[0])
    shift, scale = features.mean(0), features.std(0)
    model = nn.Linear(6, CLASSES)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model((features - shift) / scale), train_set[1])
        loss.backward()
        return loss

    optimizer.step(closure)
    return accuracy(model, (colour_statistics(val_set[0]) - shift) / scale, val_set[1])


def main():
    parser = argparse.ArgumentParser(description="Accuracy of simple models on the stand-in.")
    parser.add_argument("--seeds", type=int, default=5, help="trainings per model")
    parser.add_argument("--steps", type=int, default=100, help="steps of batch 32 per training")
    args = parser.parse_args()

    start = time.perf_counter()
    train_set, val_set = load(TRAIN_SIZE, TRAIN_SEED), load(VAL_SIZE, VAL_SEED)
    print(f"Drew {TRAIN_SIZE + VAL_SIZE} pictures in {time.perf_counter() - start:.1f} s.\n")

    print("| model | mean | min | max | n | each seed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, make_model in MODELS.items():
        scores = [
            accuracy(train(make_model, train_set, args.steps, seed), *val_set)
            for seed in range(args.seeds)
        ]
        mean, each = statistics.mean(scores), " ".join(f"{score:.3f}" for score in scores)
        row = f"{mean:.3f} | {min(scores):.3f} | {max(scores):.3f} | {len(scores)} | {each}"
        print(f"| {name} | {row} |", flush=True)
    colour = colour_accuracy(train_set, val_set)
    print(f"| colour statistics only | {colour:.3f} | {colour:.3f} | {colour:.3f} | 1 | |")


if __name__ == "__main__":
    main()
