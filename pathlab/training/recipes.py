"""Named settings of a training, and the learning-rate schedules."""

import math
from collections.abc import Callable

MODELS = {
    "classification": ("linear", "mlp", "cnn"),
    "segmentation": ("linear", "mlp", "cnn", "unet"),
}
EXPLORE = {  # the course's first look: one epoch of 100 steps, Adam at a constant rate
    "epochs": 1,
    "max_steps": 100,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "schedule": "constant",
    "augment": False,
    "label_smoothing": 0.0,
    "patience": 0,
    "keep": "best",
}
BEST_CLASSIFICATION = {
    "epochs": 20,
    "max_steps": 0,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "weight_decay": 5e-2,
    "schedule": "cosine",
    "augment": True,
    "label_smoothing": 0.0,
    "patience": 0,
    # The cosine has run down to nothing, so the last weights are the settled ones. The best
    # validation accuracy of a small validation set is often an early epoch's good luck.
    "keep": "last",
}
BEST_SEGMENTATION = {
    "epochs": 12,
    "max_steps": 0,
    "batch_size": 64,
    "learning_rate": 4e-3,
    "weight_decay": 1e-2,
    "schedule": "cosine",
    "patience": 0,
    "keep": "last",
}
RECIPES = {
    "classification": {"explore": EXPLORE, "best": BEST_CLASSIFICATION},
    "segmentation": {
        "explore": {name: EXPLORE[name] for name in BEST_SEGMENTATION},
        "best": BEST_SEGMENTATION,
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
