"""Where images come from: MedMNIST by name, any .npz in its layout, or the drawn stand-in."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pathlab.data import tissue
from pathlab.data.archives import ARRAYS, SPLITS, decode
from pathlab.data.download import (
    OfficialSet,
    download,
    find_official,
    official_sets,
    why_unsupported,
)
from pathlab.errors import UserError, suggestion
from pathlab.files import folder_written_atomically, locked

STAND_IN_SIZES = {"train": 20_000, "val": 4_000, "test": 4_000}


@dataclass(frozen=True)
class ImageData:
    """A data set of three splits.

    name: "pathmnist", another MedMNIST name, "synthetic", or a file's stem.
    source: "download" (official MedMNIST file), "file" (an .npz given by path), or "synthetic".
    images: for each split uint8 [N, 28, 28] (gray) or [N, 28, 28, 3]. labels: int64 [N].
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    @property
    def num_classes(self) -> int:
        """How many classes there are: labels are 0 to num_classes - 1."""
        return len(self.class_names)

    @property
    def is_gray(self) -> bool:
        """Whether the images have one channel."""
        return self.images["train"].ndim == 3


def is_archive(dataset: str) -> bool:
    """Whether a value of --dataset is the path of a file, not a name."""
    return dataset.lower().endswith(".npz")


def load(
    dataset: str = "auto", data_root: str | Path = "./data", may_download: bool = True
) -> ImageData:
    """The data set called `dataset`; a banner says so if that is the drawn stand-in.

    "auto" is PathMNIST from `data_root`, else downloaded, else (known within 5 seconds) the
    stand-in. "synthetic" is the stand-in. A name such as "pathmnist" or "bloodmnist" is the
    official MedMNIST file, downloaded if necessary. Anything that ends in .npz is a path. Without
    `may_download`, only what is on the disk counts. Raises UserError for everything else, and for a
    file that is damaged or has another layout.
    """
    data_root = Path(data_root)
    if dataset == "synthetic":
        return _stand_in(data_root, "you asked for it with --dataset synthetic")
    if dataset == "auto":
        return _pathmnist_or_stand_in(data_root, may_download)
    if dataset in official_sets():
        return _official(official_sets()[dataset], data_root, may_download)
    if is_archive(dataset):
        return _from_npz(Path(dataset), data_root)
    if reason := why_unsupported(dataset):
        raise UserError(f"the data set {dataset!r} cannot be used here: {reason}.")
    names = ["auto", "synthetic", *official_sets()]
    raise UserError(
        f"unknown data set {dataset!r}. {suggestion(dataset, names)} The path of an .npz file in "
        "the MedMNIST layout works, too."
    )


def _pathmnist_or_stand_in(data_root: Path, may_download: bool) -> ImageData:
    pathmnist = official_sets()["pathmnist"]
    if not find_official(pathmnist, data_root):
        if not may_download:
            return _stand_in(data_root, "PathMNIST is not on this disk")
        try:
            download(pathmnist, data_root)
        except UserError as error:
            why = error.__cause__ or "its server cannot be reached"
            return _stand_in(data_root, f"PathMNIST is not on this disk: {why}")
    return _official(pathmnist, data_root, may_download)


def _official(official: OfficialSet, data_root: Path, may_download: bool) -> ImageData:
    path = find_official(official, data_root)
    if not path and not may_download:
        raise UserError(f"{official.name}.npz is not in {data_root}, and download is off.")
    path = path or download(official, data_root)
    folder = decode(path, data_root, official, strict=True)
    return _read_folder(folder, official.name, "download", official.class_names)


def _from_npz(path: Path, data_root: Path) -> ImageData:
    if not path.is_file():
        raise UserError(
            f"there is no file {path}. --dataset takes the path of an .npz in the MedMNIST layout, "
            f"with the arrays {', '.join(ARRAYS)}."
        )
    official = official_sets().get(path.stem)
    data = _read_folder(decode(path, data_root, official), path.stem, "file", ())
    num_classes = int(data.labels["train"].max()) + 1
    names = tuple(f"class {label}" for label in range(num_classes))
    if official and len(official.class_names) == num_classes:
        names = official.class_names
    return replace(data, class_names=names)


def _stand_in(data_root: Path, reason: str) -> ImageData:
    line = "=" * 78
    print(
        f"{line}\nSTAND-IN DATA: these are drawn images, not PathMNIST\n({reason}).\n"
        "Good for learning and for comparing models; no figure from them says anything\n"
        f"about real tissue. `--dataset pathmnist` says how to get the real set.\n{line}"
    )
    sizes = "-".join(str(size) for size in STAND_IN_SIZES.values())
    folder = data_root / f"synthetic-v{tissue.VERSION}-{sizes}.cache"
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                _draw_stand_in(folder)
    return _read_folder(folder, "synthetic", "synthetic", tissue.CLASS_NAMES)


def _draw_stand_in(folder: Path) -> None:
    total = sum(STAND_IN_SIZES.values())
    print(f"drawing {total:,} images into {folder} (once)", flush=True)
    with (
        folder_written_atomically(folder) as temporary,
        tqdm(total=total, desc="drawing", unit="image", leave=False, disable=None) as bar,
    ):
        for seed, (split, size) in enumerate(STAND_IN_SIZES.items()):
            images, labels = tissue.draw_split(size, seed, progress=bar.update)
            np.save(temporary / f"{split}_images.npy", images)
            np.save(temporary / f"{split}_labels.npy", labels)


def _read_folder(folder: Path, name: str, source: str, class_names: tuple[str, ...]) -> ImageData:
    try:
        images = {s: np.load(folder / f"{s}_images.npy", mmap_mode="r") for s in SPLITS}
        labels = {s: np.load(folder / f"{s}_labels.npy") for s in SPLITS}
    except (OSError, ValueError) as error:
        raise UserError(
            f"the decoded copy {folder} is damaged ({error}). Delete that folder and run the "
            "same command again; it will be decoded again."
        ) from error
    return ImageData(name, source, class_names, images, labels)
