"""The one way to write a file: whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pathlab.errors import UserError


@contextlib.contextmanager
def file_written_atomically(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes the file's next bytes; on success they become `path`.

    The bytes go to a temporary file beside it, reach the disk (fsync), and are renamed. If anything
    goes wrong, `path` is exactly as it was. Raises UserError for a full disk, a missing right, or
    any other OSError of the file; errors of the body come through as they are.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _explain_os_error(path):
            file = open(temporary, "wb")  # noqa: SIM115  (closed below, before the renaming)

        def write(data: bytes) -> None:
            with _explain_os_error(path):
                file.write(data)

        try:
            yield write
            with _explain_os_error(path):
                file.flush()
                os.fsync(file.fileno())
        finally:
            with contextlib.suppress(OSError):  # flushed above, or failed before
                file.close()
        with _explain_os_error(path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by a file with these bytes, or leave it exactly as it was.

    Raises UserError as file_written_atomically does.
    """
    with file_written_atomically(path) as write:
        write(data)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically. Raises UserError as write_atomically does."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, replacing what was there.

    If anything goes wrong, nothing of it is left. Raises UserError for an OSError. Where several
    processes may want the same folder, hold `locked(path)` meanwhile.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explain_os_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock that belongs to `path`; other processes wait. A killed process releases it.

    The lock is an empty hidden file beside `path`, which stays there. Without `wait`, raises
    UserError where another process holds it.
    """
    make_folder(path.parent)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is working in {path}; wait for it to finish.") from None
    try:
        yield
    finally:
        lock.release()


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and make sure that files can be written to it.

    Raises UserError otherwise.
    """
    with _explain_os_error(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test.{os.getpid()}.{threading.get_ident()}.tmp"
        probe.touch()
        probe.unlink()


def make_next_folder(path: Path) -> Path:
    """Create and return the first of path-1, path-2, ... that does not exist.

    Two processes that ask at the same moment get two folders. Raises UserError for an OSError.
    """
    number = 1
    while True:
        folder = path.with_name(f"{path.name}-{number}")
        with _explain_os_error(folder), contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
        number += 1


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


@contextlib.contextmanager
def _explain_os_error(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. Nothing half-written was left "
            "behind. Free some space or choose a folder that you may write to, then run the same "
            "command again."
        ) from error
