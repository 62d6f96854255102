"""Boxes for the segmentation task, drawn for a whole batch at once (NumPy only).

A box is a 1-pixel border of one strong colour; its mask is the whole rectangle, border and
interior. Width and height are uniform in min_size..max_size, the position is uniform over all
places where the box fits.

How hard the task is depends on the colours alone, one intensity drawn for each channel:

- "published": sign * (0.7 ... 1.0), written onto the image while that is in [0, 1]. Half of the
  intensities are negative, so they leave the displayable range; the course's published figures
  were measured this way.
- "displayable": the same draw mapped to [0, 1], so that every colour can be shown on a screen.
- "uniform": uniform in [0, 1]; some boxes are close to the tissue's own colours.
"""

from dataclasses import dataclass

import numpy as np

DIFFICULTIES = ("published", "displayable", "uniform")


@dataclass(frozen=True)
class Boxes:
    """N boxes. left, top, width, height: int64 [N], pixels. color: float32 [N, 3]."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    color: np.ndarray

    def __getitem__(self, index: np.ndarray | list[int] | slice) -> "Boxes":
        """The boxes at an index array or slice."""
        return Boxes(*(values[index] for values in vars(self).values()))


def draw_boxes(
    n: int,
    rng: np.random.Generator,
    image_size: int = 28,
    min_size: int = 8,
    max_size: int = 14,
    difficulty: str = "published",
) -> Boxes:
    """n random boxes. Raises ValueError for sizes that do not fit or an unknown difficulty."""
    if not 3 <= min_size <= max_size <= image_size:
        raise ValueError(
            f"a box needs 3 <= min_size <= max_size <= image_size, got {min_size}, {max_size} "
            f"and {image_size}"
        )
    width = rng.integers(min_size, max_size, n, endpoint=True)
    height = rng.integers(min_size, max_size, n, endpoint=True)
    left = rng.integers(0, image_size - width, endpoint=True)
    top = rng.integers(0, image_size - height, endpoint=True)
    if difficulty == "uniform":
        color = rng.random((n, 3))
    elif difficulty in DIFFICULTIES:
        color = rng.choice([-1.0, 1.0], (n, 3)) * rng.uniform(0.7, 1.0, (n, 3))
        if difficulty == "displayable":
            color = (color + 1) / 2
    else:
        raise ValueError(f"unknown difficulty {difficulty!r}: choose one of {DIFFICULTIES}")
    return Boxes(left, top, width, height, color.astype(np.float32))


def paint_boxes(images: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, 3, H, W] in [0, 1] and N boxes -> (images with borders, masks).

    Returns new arrays: images float32 [N, 3, H, W], masks float32 [N, 1, H, W] of 0 and 1.
    """
    height, width = images.shape[2:]
    mask = _rectangles(boxes, height, width, inset=0)
    border = mask & ~_rectangles(boxes, height, width, inset=1)
    painted = np.where(border[:, None], boxes.color[:, :, None, None], images)
    return painted.astype(np.float32), mask[:, None].astype(np.float32)


def _rectangles(boxes: Boxes, height: int, width: int, inset: int) -> np.ndarray:
    """bool [N, height, width], true inside each box shrunk by `inset` pixels on every side."""
    y, x = np.arange(height)[None], np.arange(width)[None]
    left, top = boxes.left[:, None] + inset, boxes.top[:, None] + inset
    right = (boxes.left + boxes.width)[:, None] - inset
    bottom = (boxes.top + boxes.height)[:, None] - inset
    rows = (y >= top) & (y < bottom)
    columns = (x >= left) & (x < right)
    return rows[:, :, None] & columns[:, None, :]
