"""Private images: what a submission is trained and scored on, drawn anew for every grading."""

from pathlib import Path

import numpy as np

from pathlab.data.boxes import draw_boxes, paint_boxes
from pathlab.data.download import find_official, official_sets
from pathlab.data.sets import ImageData, load
from pathlab.data.tissue import CLASS_NAMES, draw_split
from pathlab.errors import UserError

CLASSES = range(2, 101)


class PrivateImages:
    """Images of one source.

    dataset: "synthetic" draws fresh stand-in images. "auto" is PathMNIST if it is in data_root,
    else "synthetic". Anything else is a data set of 2 to 100 classes as pathlab.data.sets.load
    takes; its images are public, so each is turned, mirrored and stained a little differently: a
    table of hashes is worthless, though a search for the nearest of the file's own images is not
    (docs/grader.md). Raises UserError for data that cannot be used.
    """

    def __init__(self, dataset: str = "synthetic", data_root: str = "data"):
        if dataset == "auto":
            on_disk = find_official(official_sets()["pathmnist"], Path(data_root))
            dataset = "pathmnist" if on_disk else "synthetic"
        self.data: ImageData | None = None
        if dataset != "synthetic":
            self.data = load(dataset, data_root)
            if self.data.num_classes not in CLASSES:
                raise UserError(
                    f"grading needs {CLASSES[0]} to {CLASSES[-1]} classes, {dataset} has "
                    f"{self.data.num_classes}"
                )
        self.name = self.data.name if self.data else "synthetic"
        self.num_classes = self.data.num_classes if self.data else len(CLASS_NAMES)
        self._behind_boxes = {s: np.empty((0, 3, 28, 28), np.float32) for s in ("train", "val")}

    def tissue(
        self, rng: np.random.Generator, n: int, split: str = "train"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [n, 3, 28, 28] in [-1, 1] and labels int64 [n] of "train" or "val"."""
        if self.data is None:
            images, labels = draw_split(n, int(rng.integers(1 << 63)))
        else:
            chosen = rng.integers(len(self.data.labels[split]), size=n)
            images = np.asarray(self.data.images[split][np.sort(chosen)])
            labels = self.data.labels[split][np.sort(chosen)]
            shuffled = rng.permutation(n)
            images, labels = disguised(rng, images[shuffled]), labels[shuffled]
        return images.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1, labels

    def boxes(
        self, rng: np.random.Generator, n: int, split: str = "train"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images with boxes float32 [n, 3, 28, 28] and masks float32 [n, 1, 28, 28].

        The boxes and the order of the images are new in every call, the tissue behind them in every
        grading: drawing it is the most expensive thing that the trusted side does.
        """
        images = self._behind_boxes[split]
        if len(images) < n:
            more, _ = self.tissue(rng, n - len(images), split)
            images = self._behind_boxes[split] = np.concatenate([images, more])
        images = rng.permutation(images)[:n]
        painted, masks = paint_boxes((images + 1) / 2, draw_boxes(n, rng))
        return painted * 2 - 1, masks


def disguised(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """uint8 [n, 28, 28, 3] or gray [n, 28, 28] -> uint8 [n, 28, 28, 3], each image as one of its
    eight flips and quarter turns, with each channel's optical density times 0.95 to 1.05."""
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    turns, flips = rng.integers(4, size=len(images)), rng.random(len(images)) < 0.5
    out = np.empty_like(images)
    for turn in range(4):
        out[turns == turn] = np.rot90(images[turns == turn], turn, axes=(1, 2))
    out[flips] = out[flips, :, ::-1]
    light = (out.astype(np.float32) + 1) / 256
    stained = light ** rng.uniform(0.95, 1.05, (len(out), 1, 1, 3)).astype(np.float32)
    return (256 * stained - 1).round().clip(0, 255).astype(np.uint8)
