"""PathMNIST and its relatives as batches for a classifier (provided).

The images are so small that a whole batch is cut out of the data set and normalised as one tensor
operation: the sampler names all images of a batch, and the data set answers with all of them.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pathlab.data.augment import augmentation_for
from pathlab.data.sets import ImageData, load


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Images uint8 [B, 28, 28] or [B, 28, 28, 3] -> float32 [B, 3, 28, 28] in [-1, 1].

    A gray image is repeated to three channels, so that every model takes every data set.
    """
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return channels_first.float() / 127.5 - 1


class ImageDataset(Dataset):
    """Images and labels, by a list of indices.

    dataset[[3, 1, 4]] is (images float32 [3, 3, 28, 28] in [-1, 1], labels int64 [3]);
    dataset[3] is (image [3, 28, 28], label []). In a list an index may count on through the epochs:
    `len(dataset) + 3` is image 3 of the second epoch, with another augmentation. The loaders below
    count on; with another sampler, every epoch has the same augmentation.

    augment: a function (images [B, 3, 28, 28], torch.Generator) -> images, or None.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, augment: Callable | None = None, seed: int = 0
    ):
        self.images, self.labels = images, labels
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if np.ndim(index) == 0:
            images, labels = self[[range(len(self))[index]]]  # IndexError past the end
            return images[0], labels[0]
        positions = np.asarray(index) % len(self)
        images = to_tensor(self.images[positions])
        if self.augment is not None:
            images = self.augment(images, batch_generator(self.seed, index))
        return images, torch.from_numpy(self.labels[positions])


def batch_generator(seed: int, index: list[int]) -> torch.Generator:
    """The random numbers that belong to one batch: the same ones whenever and wherever it is cut.

    They depend on the seed and on the batch's indices alone, so they are also the same in a worker
    process and in a run that was stopped and resumed.
    """
    state = np.random.SeedSequence([seed, *index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class Batches(Sampler):
    """Which images make up each batch: yields lists of `batch_size` indices.

    Without shuffling, all images in order. With shuffling, every epoch has its own order, given by
    (seed, epoch) alone, and its indices start at epoch * size, so that the data set knows the
    epoch. A last batch that would be smaller is left out then, unless it is the only one.

    `epoch` counts the passes begun so far; setting it continues an interrupted training.
    """

    def __init__(self, size: int, batch_size: int, shuffle: bool, seed: int = 0):
        self.size, self.batch_size, self.shuffle, self.seed = size, batch_size, shuffle, seed
        self.epoch = 0

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0 and (whole == 0 or not self.shuffle))

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
            order += self.epoch * self.size
            self.epoch += 1
        for batch in range(len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


def batch_loader(
    dataset: Dataset, batch_size: int, shuffle: bool, num_workers: int = 0, seed: int = 0
) -> DataLoader:
    """A DataLoader that asks `dataset` for whole batches (PyTorch's way: batch_size=None)."""
    batches = Batches(len(dataset), batch_size, shuffle, seed)
    return DataLoader(dataset, sampler=batches, batch_size=None, num_workers=num_workers)


def create_dataloaders(
    data: ImageData,
    batch_size: int = 32,
    num_workers: int = 0,
    *,
    augment: bool = False,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """(train_loader, val_loader, test_loader) of a data set; only training images are shuffled
    and, if asked for, augmented."""
    change = augmentation_for(data) if augment else None
    datasets = {
        split: ImageDataset(data.images[split], data.labels[split]) for split in data.images
    }
    datasets["train"] = ImageDataset(data.images["train"], data.labels["train"], change, seed)
    return tuple(
        batch_loader(
            datasets[split],
            batch_size if split == "train" else max(batch_size, 256),
            shuffle=split == "train",
            num_workers=num_workers,
            seed=seed,
        )
        for split in ("train", "val", "test")
    )


def create_pathmnist_dataloaders(
    batch_size: int = 32,
    num_workers: int = 0,
    data_root: str = "./data",
    *,
    dataset: str = "auto",
    augment: bool = False,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader, int]:
    """(train_loader, val_loader, num_classes).

    A batch is (images float32 [B, 3, 28, 28] in [-1, 1], labels int64 [B]). `dataset` is "auto"
    (PathMNIST, or the drawn stand-in where it is not to be had), a MedMNIST name, "synthetic", or
    the path of an .npz file. Raises pathlab.errors.UserError for data that cannot be used.
    """
    data = load(dataset, data_root)
    train_loader, val_loader, _ = create_dataloaders(
        data, batch_size, num_workers, augment=augment, seed=seed
    )
    return train_loader, val_loader, data.num_classes
