"""PathMNIST and its relatives as batches for a classifier (provided).

The images are so small that a whole batch is cut out of the data set and normalised as one tensor
operation: the sampler names the epoch and all images of a batch, and the data set returns them.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pathlab.data.augment import Augmentation, augmentation_for
from pathlab.data.sets import ImageData, load

Key = int | list[int] | tuple[int, list[int]]  # an index, indices, or (epoch, indices)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Images uint8 [B, 28, 28] or [B, 28, 28, 3] -> float32 [B, 3, 28, 28] in [-1, 1].

    A gray image is repeated to three channels, so that every model takes every data set.
    """
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return channels_first.float() / 127.5 - 1


class ImageDataset(Dataset):
    """Images and labels, one at a time or as a batch.

    dataset[3] is (image float32 [3, 28, 28] in [-1, 1], label int64 []). dataset[epoch, [3, 1, 4]]
    is a batch: (images [3, 3, 28, 28], labels [3]), augmented differently in every epoch.
    dataset[[3, 1, 4]] is that of epoch 0: with a sampler other than Batches, every epoch has the
    same augmentation.

    augment: a function (images [B, 3, 28, 28], torch.Generator) -> images, or None.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        augment: Augmentation | None = None,
        seed: int = 0,
    ):
        self.images, self.labels = images, labels
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if np.ndim(index) == 0:
            images, labels = self[epoch, [range(len(self))[index]]]  # IndexError past the end
            return images[0], labels[0]
        images = to_tensor(self.images[index])
        if self.augment is not None:
            entropy = batch_entropy(self.seed, epoch, index, len(self))
            state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
            images = self.augment(images, generator)
        return images, torch.from_numpy(self.labels[index])


def batch_entropy(seed: int, epoch: int, index: list[int], size: int) -> list[int]:
    """What seeds the random numbers of one batch from a data set of `size` images.

    It depends on these arguments alone, so the numbers are the same in a worker process and in a
    run that was stopped and resumed, and different in every epoch.
    """
    return [seed, *(epoch * size + i for i in index)]


class Batches(Sampler):
    """Which images make up each batch: yields (epoch, list of `batch_size` indices).

    Without shuffling, all images in order, in epoch 0. With shuffling, every epoch has its own
    order, given by (seed, epoch) alone. A last batch that would be smaller is left out then, unless
    it is the only one.

    Every pass moves on to the next epoch. `set_epoch` (as in PyTorch's DistributedSampler) says
    which one comes next, so that an interrupted training can be continued.
    """

    def __init__(self, size: int, batch_size: int, shuffle: bool, seed: int = 0):
        self.size, self.batch_size, self.shuffle, self.seed = size, batch_size, shuffle, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of `epoch`, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest > 0 and (whole == 0 or not self.shuffle))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, order = self.epoch, np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            self.epoch += 1
        for batch in range(len(self)):
            yield epoch, order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()


def batch_loader(
    dataset: Dataset, split: str, batch_size: int, num_workers: int = 0, seed: int = 0
) -> DataLoader:
    """A DataLoader that requests whole batches from `dataset` (PyTorch's way: batch_size=None).

    The "train" split is shuffled; the others come in order, in batches of 256 or more.
    """
    shuffle = split == "train"
    batches = Batches(len(dataset), batch_size if shuffle else max(batch_size, 256), shuffle, seed)
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
    and, if `augment` is set, augmented."""

    def loader(split: str) -> DataLoader:
        change = augmentation_for(data) if augment and split == "train" else None
        dataset = ImageDataset(data.images[split], data.labels[split], change, seed)
        return batch_loader(dataset, split, batch_size, num_workers, seed)

    return loader("train"), loader("val"), loader("test")


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
    (PathMNIST, or the drawn stand-in where it cannot be obtained), a MedMNIST name, "synthetic", or
    the path of an .npz file. Raises pathlab.errors.UserError for data that cannot be used.
    """
    data = load(dataset, data_root)
    train_loader, val_loader, _ = create_dataloaders(
        data, batch_size, num_workers, augment=augment, seed=seed
    )
    return train_loader, val_loader, data.num_classes
