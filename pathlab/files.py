"""The one way to write a file: whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from pathlab.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by a file with these bytes, or leave it exactly as it was.

    The bytes go to a temporary file beside it, reach the disk (fsync), and are renamed. Raises
    UserError for a full disk, a missing right, or any other OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically. Raises as write_atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


@contextlib.contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; on success it becomes `path`, replacing what was there.

    If anything goes wrong, nothing of it stays. Raises UserError for an OSError. Where several
    processes may want the same folder, hold `locked(path)` meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; other processes wait. A killed holder lets go of it.

    The lock is an empty hidden file beside `path`, which stays there.
    """
    make_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make sure that files can be written to it.

    Raises UserError otherwise.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from error


def make_next_folder(path: Path) -> Path:
    """Create and return the first of path-1, path-2, ... that does not exist.

    Two processes that ask at the same moment get two folders. Raises UserError for an OSError.
    """
    number = 1
    while True:
        folder = path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(_cannot_write(folder, error)) from error


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def md5(path: Path) -> str:
    """The MD5 of a file, as MedMNIST publishes it (to find damage, not to prove origin)."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot write {path}: {error.strerror or error}. Nothing half-written was left behind. "
        "Free some space or choose a folder that you may write to, then run the same command again."
    )
