"""How often a model passes the grader's 100-step threshold, and the rule of up to three trainings.

python -m benchmarks.threshold RUNS NAME [NAME ...]

NAME is one of the reference's models (mlp, cnn, segmentation-mlp, segmentation-cnn, unet), or the
first block's channels of a plain three-block CNN (w, 2w, 4w; batch norm, max-pool, flatten). Every
run has fresh images, weights and order, as a grading has. One thread.
"""

import sys
from math import comb

import numpy as np
import torch
from torch import nn

import classification_models as classification
import segmentation_models as segmentation
from grader.checks.trainings import Schedule
from grader.course import load_assignment
from pathlab.data.boxes import draw_boxes, paint_boxes
from pathlab.data.tissue import draw_split

ASSIGNMENT = load_assignment()
SCHEDULE = Schedule(**ASSIGNMENT.settings["trainings"])
NUMBERS = {"mlp": "1.11", "segmentation-mlp": "2.13", "segmentation-cnn": "2.14", "unet": "2.15"}


def target_of(name: str) -> float:
    """The threshold of the graded test that trains this model."""
    return ASSIGNMENT.tests[NUMBERS.get(name, "1.12")].threshold or 0.0


def plain_cnn(width: int) -> nn.Module:
    layers, channels = [], 3
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(9 * channels, 9))


def make(name: str) -> nn.Module:
    if name.isdigit():
        return plain_cnn(int(name))
    if name in ("mlp", "cnn"):
        return classification.get_model(name)
    return segmentation.get_segmentation_model(name.removeprefix("segmentation-"))


def draw(name: str, n: int, seed: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, 3, 28, 28] in [-1, 1] with labels [n], or with masks [n, 1, 28, 28]."""
    images, targets = draw_split(n, seed)
    images = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    if is_segmenter(name):
        images, targets = paint_boxes(images, draw_boxes(n, np.random.default_rng(seed)))
    return torch.from_numpy(images * 2 - 1), torch.from_numpy(targets)


def is_segmenter(name: str) -> bool:
    return name == "unet" or name.startswith("segmentation")


def score(name: str, run: int) -> float:
    """Accuracy, or mean IoU, after one training."""
    torch.manual_seed(run)
    model = make(name)
    loss = segmentation.CombinedLoss() if is_segmenter(name) else nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images, targets = draw(name, SCHEDULE.images, [run, 1])
    for x, y in zip(
        images.split(SCHEDULE.batch_size), targets.split(SCHEDULE.batch_size), strict=True
    ):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    images, targets = draw(name, SCHEDULE.scored_images, [run, 2])
    with torch.no_grad():
        answer = model.eval()(images)
    if is_segmenter(name):
        return segmentation.calculate_iou(answer, targets)
    return (answer.argmax(1) == targets).float().mean().item()


def main() -> None:
    torch.set_num_threads(1)
    runs = int(sys.argv[1])
    print(
        "| model | target | mean | standard deviation | minimum | one training reaches it | "
        f"one of {SCHEDULE.count} does | runs |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name in sys.argv[2:]:
        target = target_of(name)
        scores = np.array([score(name, run) for run in range(runs)])
        failed = int((scores < target).sum())
        # Over all ways to choose three different runs of these.
        rule = 1 - comb(failed, SCHEDULE.count) / comb(runs, SCHEDULE.count)
        print(
            f"| {name} | {target} | {scores.mean():.3f} | {scores.std(ddof=1):.3f} | "
            f"{scores.min():.3f} | {1 - failed / runs:.2f} | {rule:.5f} | {runs} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
