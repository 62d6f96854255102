"""Where images come from: MedMNIST by name, any .npz in its layout, or the drawn stand-in.

An archive is decoded once into a folder of memory-mapped .npy files beside it, so that every later
run starts at once and several runs share the memory.
"""

import hashlib
import json
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pathlab.data import tissue
from pathlab.data.download import (
    OfficialSet,
    download,
    find_official,
    official_sets,
    why_unsupported,
)
from pathlab.errors import UserError, suggestion
from pathlab.files import folder_written_atomically, locked, md5

SPLITS = ("train", "val", "test")
STAND_IN_SIZES = {"train": 20_000, "val": 4_000, "test": 4_000}
# What a damaged archive can raise, a changed compression method or flag included.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
ARRAYS = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]


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
        return len(self.class_names)

    @property
    def is_gray(self) -> bool:
        return self.images["train"].ndim == 3


def is_archive(dataset: str) -> bool:
    """Whether a value of --dataset is the path of a file, not a name."""
    return dataset.lower().endswith(".npz")


def load(
    dataset: str = "auto", data_root: str | Path = "./data", may_download: bool = True
) -> ImageData:
    """The data set called `dataset`; says so in a banner if that is the drawn stand-in.

    "auto" is PathMNIST from `data_root`, else downloaded, else (known within 5 seconds) the
    stand-in. "synthetic" is the stand-in. A name such as "pathmnist" or "bloodmnist" is the
    official MedMNIST file, downloaded if need be. Anything that ends in .npz is a path. Without
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
        "the MedMNIST layout can be given, too."
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
    decoded = _decoded(path, data_root, expected_md5=official.md5, url=official.url)
    return _read_folder(decoded, official.name, "download", official.class_names)


def _from_npz(path: Path, data_root: Path) -> ImageData:
    if not path.is_file():
        raise UserError(
            f"there is no file {path}. --dataset takes the path of an .npz in the MedMNIST layout, "
            f"with the arrays {', '.join(ARRAYS)}."
        )
    official = official_sets().get(path.stem)
    known = {"expected_md5": official.md5, "url": official.url} if official else {}
    folder = _decoded(path, data_root, strict=False, **known)
    data = _read_folder(folder, path.stem, "file", ())
    num_classes = int(data.labels["train"].max()) + 1
    names = tuple(f"class {label}" for label in range(num_classes))
    if official and len(official.class_names) == num_classes:
        names = official.class_names
    return ImageData(data.name, data.source, names, data.images, data.labels)


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
            before = bar.n
            images, labels = tissue.draw_split(
                size, seed, progress=lambda n, _, before=before: bar.update(before + n - bar.n)
            )
            np.save(temporary / f"{split}_images.npy", images)
            np.save(temporary / f"{split}_labels.npy", labels)


def _read_folder(folder: Path, name: str, source: str, class_names: tuple[str, ...]) -> ImageData:
    try:
        images = {s: np.load(folder / f"{s}_images.npy", mmap_mode="r") for s in SPLITS}
        labels = {s: np.load(folder / f"{s}_labels.npy") for s in SPLITS}
    except (OSError, ValueError) as error:
        raise UserError(
            f"the decoded copy {folder} is damaged ({error}). Delete that folder and run the "
            "same command again; it is made anew."
        ) from error
    return ImageData(name, source, class_names, images, labels)


def _decoded(
    path: Path, data_root: Path, expected_md5: str = "", url: str = "", strict: bool = True
) -> Path:
    """The folder with the arrays of the archive `path`, made now if it does not fit the archive.

    With `strict`, an archive whose MD5 is not the expected one is refused even if it can be read.
    """
    folder = _cache_folder(path, data_root)
    status = path.stat()
    stamp = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}

    def fits() -> bool:
        found = _stamp_of(folder)
        right = not strict or found.get("md5") == expected_md5
        return right and {name: found.get(name) for name in stamp} == stamp

    if not fits():
        with locked(folder):
            if not fits():
                arrays, found_md5 = _read_archive(path, expected_md5, url, strict)
                print(f"decoding {path.name} into {folder} (once)", flush=True)
                with folder_written_atomically(folder) as temporary:
                    for name, array in arrays.items():
                        np.save(temporary / f"{name}.npy", array)
                    (temporary / "source.json").write_text(json.dumps({**stamp, "md5": found_md5}))
    return folder


def _read_archive(
    path: Path, expected_md5: str, url: str, strict: bool
) -> tuple[dict[str, np.ndarray], str]:
    """(arrays, MD5): images uint8 [N, 28, 28] or [N, 28, 28, 3] and labels int64 [N], checked."""
    try:
        found_md5 = md5(path)
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}.") from error
    if strict and found_md5 != expected_md5:
        raise _damaged(path, "its MD5 is wrong", expected_md5, found_md5, url)
    try:
        with zipfile.ZipFile(path):  # np.load would take a bare .npy too
            archive = np.load(path, allow_pickle=False)
        with archive:
            arrays = {name: archive[name] for name in archive.files if name in ARRAYS}
    except _DAMAGE as error:
        raise _damaged(path, f"it cannot be read: {error}", expected_md5, found_md5, url) from error
    _check_layout(arrays, path)
    for name, array in arrays.items():
        if name.endswith("labels"):
            arrays[name] = array.reshape(-1).astype(np.int64)
        elif array.shape[3:] == (1,):
            arrays[name] = array[..., 0]
    return arrays, found_md5


def _cache_folder(path: Path, data_root: Path) -> Path:
    """Beside the archive, or in data_root where the archive's folder is read-only; there the name
    tells archives of the same name in different folders apart.

    A folder without any write permission is respected also where root could write to it.
    """
    parent = path.resolve().parent
    writable = os.access(parent, os.W_OK) and parent.stat().st_mode & (
        stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    )
    if writable:
        return parent / f"{path.stem}.cache"
    place = hashlib.sha256(str(parent).encode()).hexdigest()[:8]
    return data_root / f"{path.stem}-{place}.cache"


def _stamp_of(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / "source.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _damaged(path: Path, reason: str, expected: str, found: str, url: str) -> UserError:
    """The error for a damaged archive. An official file is set aside, so that it can come anew."""
    advice = "Get the file again from where you got it."
    if url:
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
            kept = f"The damaged file was kept as {aside}. "
        except OSError:
            kept = ""
        advice = f"{kept}Download {url} and save it as {path}, or let the program do it."
    return UserError(
        f"{path} is damaged: {reason}. Expected MD5 {expected or '(not published)'}, found "
        f"{found}. {advice}"
    )


def _check_layout(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Raise UserError unless these are the arrays of a 28x28 set with one label per image."""
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise UserError(
            f"{path} lacks the arrays {', '.join(missing)}. A file in the MedMNIST layout has "
            f"{', '.join(ARRAYS)}."
        )
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        where = f"{path}: {split}_"
        if images.dtype != np.uint8:
            raise UserError(f"{where}images has dtype {images.dtype}, expected uint8 (0 to 255).")
        if images.shape[1:] not in ((28, 28), (28, 28, 1), (28, 28, 3)) or len(images) == 0:
            raise UserError(
                f"{where}images has shape {images.shape}, expected (N, 28, 28) or (N, 28, 28, 3) "
                "with N at least 1. Other sizes of MedMNIST are not supported here."
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{where}labels has dtype {labels.dtype}, expected integers from 0.")
        if labels.shape not in ((len(images),), (len(images), 1)):
            raise UserError(
                f"{where}labels has shape {labels.shape}, expected ({len(images)}, 1): one label "
                "for each image. Sets with several labels per image are not supported."
            )
        low, high = int(labels.min()), int(labels.max())
        top = int(arrays["train_labels"].max())
        if low < 0 or high > top:
            raise UserError(
                f"{where}labels runs from {low} to {high}; labels must be in 0 to {top}, the "
                "largest label of the training images."
            )
    channels = {arrays[f"{split}_images"].shape[3:] for split in SPLITS}
    if len(channels) > 1:
        raise UserError(f"{path} mixes gray and colour images between its splits.")
