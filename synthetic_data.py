"""Boxes on tissue: the segmentation task (provided).

A box is a 1-pixel border of one strong colour drawn on a tissue image; the mask to predict is the
whole rectangle, border and interior. Training boxes are fresh in every epoch; validation and test
boxes are the same in every run.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from classification_dataset import Key, batch_entropy, batch_loader, to_tensor
from pathlab.data.boxes import Boxes, draw_boxes, paint_boxes
from pathlab.data.sets import ImageData, load

FIXED_BOXES_SEED = {"val": 1, "test": 2}  # not the run's seed: every run is scored on the same ones


class SegmentationDataGenerator:
    """Draws one box at a time, to look at and to play with; `paint_boxes` draws those of a batch.

    min_size and max_size: the smallest and largest width and height of a box, in pixels.
    """

    def __init__(
        self,
        image_size: int = 28,
        min_size: int = 8,
        max_size: int = 14,
        *,
        difficulty: str = "published",
        seed: int | None = None,
    ):
        self.sizes = (image_size, min_size, max_size)
        self.difficulty = difficulty
        self.rng = np.random.default_rng(seed)

    def generate_box(self) -> dict:
        """A random box: {"x", "y", "width", "height"} in pixels and "color", three intensities."""
        boxes = draw_boxes(1, self.rng, *self.sizes, difficulty=self.difficulty)
        return {
            "x": int(boxes.left[0]),
            "y": int(boxes.top[0]),
            "width": int(boxes.width[0]),
            "height": int(boxes.height[0]),
            "color": tuple(boxes.color[0].tolist()),
        }

    def add_box_to_image(
        self, image: torch.Tensor, box_info: dict
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image float32 [3, H, W] in [0, 1] -> (image with the border, mask [1, H, W] of 0 and 1).

        The image is not changed. "published" colours leave [0, 1]: see pathlab/data/boxes.py.
        """
        values = (box_info[key] for key in ("x", "y", "width", "height", "color"))
        box = Boxes(*(np.asarray([value]) for value in values))
        images, masks = paint_boxes(image[None].numpy(), box)
        return torch.from_numpy(images[0]), torch.from_numpy(masks[0])


class PathMNISTBoxDataset(Dataset):
    """Images with boxes, one at a time or as a batch.

    dataset[epoch, [3, 1]] is a dict of `image` float32 [2, 3, 28, 28] (tissue in [-1, 1]; the
    border of a "published" box lies in [-3, -2.4] or [0.4, 1]), `mask` float32 [2, 1, 28, 28] of 0
    and 1, `pathmnist_label` int64 [2] and `has_box` bool [2]. The training split has other boxes in
    every epoch. dataset[[3, 1]] is the batch of epoch 0 (with a sampler other than Batches, every
    epoch has the same boxes); dataset[3] is one sample, without the first dimension.

    download: whether PathMNIST may be downloaded if it is not in `root`; the stand-in is used if it
    cannot be obtained.

    transform: a function of the finished image batch, or None. It must not move pixels, since the
    mask does not pass through it.
    """

    def __init__(
        self,
        split: str = "train",
        root: str = "./data",
        download: bool = True,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        add_boxes: bool = True,
        *,
        data: ImageData | None = None,
        difficulty: str = "published",
        seed: int = 0,
    ):
        if data is None:
            data = load("auto", root, may_download=download)
        self.images, self.labels = data.images[split], data.labels[split]
        self.split, self.transform, self.add_boxes = split, transform, add_boxes
        self.difficulty, self.seed = difficulty, seed
        self.fixed_boxes = None
        if split in FIXED_BOXES_SEED:
            rng = np.random.default_rng(FIXED_BOXES_SEED[split])
            self.fixed_boxes = draw_boxes(len(self), rng, difficulty=difficulty)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if np.ndim(index) == 0:
            only = self[epoch, [range(len(self))[index]]]  # IndexError past the end
            return {name: values[0] for name, values in only.items()}
        images = to_tensor(self.images[index])
        masks = torch.zeros(len(index), 1, *images.shape[2:])
        if self.add_boxes:
            light, painted_masks = paint_boxes((images.numpy() + 1) / 2, self._boxes(epoch, index))
            images, masks = torch.from_numpy(light) * 2 - 1, torch.from_numpy(painted_masks)
        if self.transform is not None:
            images = self.transform(images)
        return {
            "image": images,
            "mask": masks,
            "pathmnist_label": torch.from_numpy(self.labels[index]),
            "has_box": torch.full((len(index),), self.add_boxes),
        }

    def _boxes(self, epoch: int, index: list[int]) -> Boxes:
        if self.fixed_boxes is not None:
            return self.fixed_boxes[index]
        rng = np.random.default_rng(batch_entropy(self.seed, epoch, index, len(self)))
        return draw_boxes(len(index), rng, difficulty=self.difficulty)


def create_box_dataloaders(
    batch_size: int = 32,
    num_workers: int = 0,
    data_root: str = "./data",
    *,
    dataset: str = "auto",
    data: ImageData | None = None,
    difficulty: str = "published",
    seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader, int]:
    """(train_loader, val_loader, test_loader, num_classes); a batch is PathMNISTBoxDataset's dict.

    num_classes counts the tissue classes of `pathmnist_label`. Raises pathlab.errors.UserError for
    data that cannot be used.
    """
    if data is None:
        data = load(dataset, data_root)

    def loader(split: str) -> DataLoader:
        dataset = PathMNISTBoxDataset(split, data=data, difficulty=difficulty, seed=seed)
        return batch_loader(dataset, split, batch_size, num_workers, seed)

    return loader("train"), loader("val"), loader("test"), data.num_classes


def visualize_box_samples(
    dataset: PathMNISTBoxDataset, num_samples: int = 6, save_path: str | Path | None = None
) -> None:
    """Draw images with boxes above their masks; to a PNG at `save_path`, else on the screen."""
    from pathlab.training.plots import image_grid  # matplotlib is slow to import

    samples = dataset[list(range(min(num_samples, len(dataset))))]
    image_grid([samples["image"], samples["mask"]], ["image", "mask"], save_path)
