"""Named settings of a training, and the learning-rate schedules."""

import math
from collections.abc import Callable
from typing import Any

MODELS = {
    "classification": ("linear", "mlp", "cnn"),
    "segmentation": ("linear", "mlp", "cnn", "unet"),
}
# The course's first look: one epoch of 100 steps at a constant rate.
EXPLORE: dict[str, Any] = {"epochs": 1, "max_steps": 100, "batch_size": 32, "learning_rate": 1e-3}
EXPLORE |= {"weight_decay": 1e-4, "schedule": "constant", "patience": 0, "keep": "best"}
# The cosine ends at 0, so the last weights have converged; the best accuracy on a small validation
# set is often an early epoch's good luck.
BEST: dict[str, Any] = {
    "max_steps": 0,
    "batch_size": 64,
    "schedule": "cosine",
    "patience": 0,
    "keep": "last",
}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "classification": {
        "explore": EXPLORE | {"augment": False, "label_smoothing": 0.0},
        "best": BEST
        | {"epochs": 20, "learning_rate": 3e-3, "weight_decay": 5e-2}
        | {"augment": True, "label_smoothing": 0.0},
    },
    "segmentation": {
        "explore": EXPLORE,
        "best": BEST | {"epochs": 12, "learning_rate": 4e-3, "weight_decay": 1e-2},
    },
}
SCHEDULES = ("constant", "cosine")
WARM_UP = 0.15  # the part of the training in which the cosine schedule's rate rises


def make_schedule(name: str, total_steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step, 0 to total_steps.

    "constant" is 1. "cosine" rises linearly from 1 % to 1 in the first 15 % of the steps, then
    falls to 0 along half a cosine (Loshchilov & Hutter, 2017, without restarts).
    """
    if name == "constant":
        return lambda step: 1.0
    warm_up_steps = max(1, round(WARM_UP * total_steps))

    def cosine(step: int) -> float:
        if step < warm_up_steps:
            return 0.01 + 0.99 * step / warm_up_steps
        done = (step - warm_up_steps) / max(1, total_steps - warm_up_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return cosine
