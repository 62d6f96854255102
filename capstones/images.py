"""Images from files: found, checked and read, with the file's name in every complaint."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from pathlab.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class ImageSet(Dataset):
    """Items: transform(images[i]), with labels[i] behind it where there are labels."""

    def __init__(self, images: Iterable, labels: Sequence[int] | None, transform: Callable) -> None:
        self.images, self.labels, self.transform = list(images), labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> object:
        item = self.transform(self.images[i])
        return item if self.labels is None else (item, self.labels[i])


def to_float(
    mean: Sequence[float] = IMAGENET_MEAN, deviation: Sequence[float] = IMAGENET_STD
) -> v2.Transform:
    """From uint8 to float32 in [0, 1], normalised for each channel."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, deviation)])


def find_images(folder: Path) -> dict[str, Path]:
    """The images of a folder by their name without the suffix, in order of the names.

    Raises UserError for a missing folder, one without images, and two images of the same name.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{folder} has two images of the name {path.stem}: keep one.")
        found[path.stem] = path
    if not found:
        raise UserError(f"{folder} holds no image ({', '.join(SUFFIXES)}).")
    return found


def stem(name: str) -> str:
    """An image's name in a table without its suffix, if it has one there."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def read_image(path: Path, mode: str = "RGB") -> torch.Tensor:
    """uint8 [C, H, W]: C is 3 for mode "RGB" and 1 for mode "L".

    Sixteen-bit gray images are scaled to eight bits. Raises UserError for a file that is missing,
    damaged or not an image.
    """
    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if image.mode.startswith("I;16") or image.mode == "I":
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            array = np.array(image.convert(mode))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image: {error}. Replace it, or take it out of the "
            "folder and the table."
        ) from error
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def read_all(files: Iterable, read: Callable = read_image) -> list:
    """What `read` returns of each. So damage is met before hours of training. Raises as `read`."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        found = pool.map(read, files)
        return list(tqdm(found, "reading images", len(files), leave=False, disable=None))


def check_images(samples: Iterable) -> None:
    """Raises UserError for a damaged file. samples: the files of each, or pixels."""
    files = [file for images in samples if isinstance(images, tuple) for file in images]
    read_all(files, lambda file: read_image(file) is None)  # nothing is kept in memory


def mean_and_deviation(images: Iterable[torch.Tensor]) -> tuple[list[float], list[float]]:
    """Of each channel over all pixels of all images (uint8 [C, H, W]), in the range [0, 1]."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for image in images:
        pixels = image.flatten(1).double() / 255
        count += pixels.shape[1]
        total = total + pixels.sum(1)
        squares = squares + pixels.square().sum(1)
    if not count:
        raise UserError("there is no training image.")
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1e-6)
    return mean.tolist(), deviation.tolist()
