"""Decodes .npz archives in the MedMNIST layout, once, into folders of memory-mapped .npy files.

Every later run starts at once, and several runs share the memory.
"""

import hashlib
import json
import os
import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np

from pathlab.data.download import OfficialSet
from pathlab.errors import UserError
from pathlab.files import folder_written_atomically, locked, md5

SPLITS = ("train", "val", "test")
ARRAYS = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
# What a damaged archive can raise, a changed compression method or flag included.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def decode(path: Path, data_root: Path, official: OfficialSet | None, strict: bool = False) -> Path:
    """The folder with the arrays of the archive `path`: images uint8 [N, 28, 28] or
    [N, 28, 28, 3], labels int64 [N]. It is written now if it does not fit the archive.

    official: the MedMNIST set of that name, if there is one. With `strict`, an archive whose MD5 is
    not the official one is refused even if it can be read. Raises UserError for a damaged archive
    and for another layout.
    """
    folder = _cache_folder(path, data_root)
    status = path.stat()
    stamp = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}

    def fits() -> bool:
        found = _read_stamp(folder)
        right = not strict or (official is not None and found.get("md5") == official.md5)
        return right and {name: found.get(name) for name in stamp} == stamp

    if not fits():
        with locked(folder):
            if not fits():
                arrays, found_md5 = _read_archive(path, official, strict)
                print(f"decoding {path.name} into {folder} (once)", flush=True)
                with folder_written_atomically(folder) as temporary:
                    for name, array in arrays.items():
                        np.save(temporary / f"{name}.npy", array)
                    (temporary / "source.json").write_text(json.dumps({**stamp, "md5": found_md5}))
    return folder


def _read_archive(
    path: Path, official: OfficialSet | None, strict: bool
) -> tuple[dict[str, np.ndarray], str]:
    """(arrays as in decode, MD5), checked."""
    try:
        found_md5 = md5(path)
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error.strerror}.") from error
    if strict and official and found_md5 != official.md5:
        raise _damage_error(path, "its MD5 is wrong", found_md5, official)
    try:
        with zipfile.ZipFile(path):  # np.load would accept a bare .npy too
            archive = np.load(path, allow_pickle=False)
        with archive:
            arrays = {name: archive[name] for name in archive.files if name in ARRAYS}
    except _DAMAGE as error:
        raise _damage_error(path, f"it cannot be read: {error}", found_md5, official) from error
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
    any_write = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    if os.access(parent, os.W_OK) and parent.stat().st_mode & any_write:
        return parent / f"{path.stem}.cache"
    place = hashlib.sha256(str(parent).encode()).hexdigest()[:8]
    return data_root / f"{path.stem}-{place}.cache"


def _read_stamp(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / "source.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _damage_error(
    path: Path, reason: str, found_md5: str, official: OfficialSet | None
) -> UserError:
    """The error for a damaged archive. An official file is set aside to make room for a new one."""
    expected, advice = "(not published)", "Get the file again from where you got it."
    if official:
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
            kept = f"The damaged file was kept as {aside}. "
        except OSError:
            kept = ""
        advice = f"{kept}Download {official.url} and save it as {path}, or let the program do it."
        expected = official.md5
    return UserError(
        f"{path} is damaged: {reason}. Expected MD5 {expected}, found {found_md5}. {advice}"
    )


def _check_layout(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Raise UserError unless these are the arrays of a 28x28 set with one label per image."""
    if missing := [name for name in ARRAYS if name not in arrays]:
        raise UserError(
            f"{path} lacks the arrays {', '.join(missing)}. A file in the MedMNIST layout has "
            f"{', '.join(ARRAYS)}."
        )
    train = arrays["train_labels"]
    top = int(train.max()) if train.size and np.issubdtype(train.dtype, np.integer) else 0
    for split in SPLITS:
        if problem := _problem(arrays[f"{split}_images"], arrays[f"{split}_labels"], top):
            raise UserError(f"{path}: {split}_{problem}")
    if len({arrays[f"{split}_images"].shape[3:] for split in SPLITS}) > 1:
        raise UserError(f"{path} mixes gray and colour images between its splits.")


def _problem(images: np.ndarray, labels: np.ndarray, top: int) -> str | None:
    """What is wrong with one split, if anything is; labels may be 0 to top."""
    if images.dtype != np.uint8:
        return f"images has dtype {images.dtype}, expected uint8 (0 to 255)."
    if images.shape[1:] not in ((28, 28), (28, 28, 1), (28, 28, 3)) or len(images) == 0:
        return (
            f"images has shape {images.shape}, expected (N, 28, 28) or (N, 28, 28, 3) "
            "with N at least 1. Other sizes of MedMNIST are not supported here."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        return f"labels has dtype {labels.dtype}, expected integers from 0."
    if labels.shape not in ((len(images),), (len(images), 1)):
        return (
            f"labels has shape {labels.shape}, expected ({len(images)}, 1): one label "
            "for each image. Sets with several labels per image are not supported."
        )
    if labels.min() < 0 or labels.max() > top:
        return (
            f"labels runs from {labels.min()} to {labels.max()}; labels must be in 0 to {top}, "
            "the largest label of the training images."
        )
    return None
