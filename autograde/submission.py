"""A private copy of a submission: plain files of bounded size under harmless names."""

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from autograde.assignment import Assignment

CHECKPOINTS = "checkpoints"  # the folder of that name, in a submission and beside its copy
MAX_SOURCE = 512 << 10  # bytes of all .py files together
MAX_PACKED = 64 << 10  # the same, compressed: trained weights are not compressible, code is
MAX_CHECKPOINT = 64 << 20  # bytes of one weight file
MAX_ABOUT = 64 << 10  # bytes of one .json: the trusted side parses it
MAX_COPIED = 160 << 20  # bytes of all files together
MAX_ARCHIVE = 192 << 20  # bytes of a zip
MAX_FILES = 20_000  # entries looked at in an archive or folder
MAX_MODULES = 50  # .py files
# Neither a link nor a pipe in place of a file, where the system can tell; bytes as they are.
READING = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")
)
TOO_LARGE = ".too-large"  # what is left, empty, of a checkpoint that is not copied for its size
Read = Callable[[int], bytes]  # the first so many bytes of a file


class BadSubmission(Exception):
    """Nothing can be graded; says why."""


def copy_submission(source: Path, workspace: Path, assignment: Assignment) -> Path:
    """Copy the submission in `source`, a folder or a zip, into workspace/submission; that path.

    Only *.py files beside the assignment's modules and what is graded of checkpoints/ are copied,
    as new plain files. Links and special files are left out; sizes are counted while reading, so
    that a zip bomb stops at the limit. A checkpoint that is too large costs the tests that need it,
    and no others: in its place stands an empty file with TOO_LARGE behind its name.
    The checkpoints go to workspace/checkpoints, which no worker sees: a training must not find
    trained weights. Raises BadSubmission.
    """
    folder, checkpoints = workspace / "submission", workspace / CHECKPOINTS
    files = dict(_zip_files(source) if source.is_file() else _folder_files(source))
    tops = [name.parent for name in files if name.name in assignment.modules]
    if not tops:
        raise BadSubmission(f"none of {', '.join(assignment.modules)} is in {source.name}")
    top = min(tops, key=lambda path: (len(path.parts), str(path)))
    for path in (folder, checkpoints):
        path.mkdir(parents=True)
    chosen = sorted(files.items())
    copied = _copy_modules([item for item in chosen if item[0].parent == top], folder)
    pattern = re.compile(assignment.checkpoints)
    wanted = [
        (name, read)
        for name, read in chosen
        if name.parent == top / CHECKPOINTS and pattern.fullmatch(name.name)
    ]
    _copy_checkpoints(wanted, checkpoints, MAX_COPIED - copied)
    for path in (workspace, *workspace.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the worker may be another user
    checkpoints.chmod(0o700)
    return folder


def _copy_modules(files: list[tuple[PurePosixPath, Read]], folder: Path) -> int:
    """Copy the .py files that can be imported; their bytes together."""
    total, packer, packed, modules = 0, zlib.compressobj(), 0, 0
    for name, read in files:
        if name.suffix != ".py" or not name.stem.isidentifier():
            continue
        data = read(MAX_SOURCE - total + 1)
        total += len(data)
        if total > MAX_SOURCE:
            raise BadSubmission(f"its .py files have more than {MAX_SOURCE >> 10} KiB together")
        packed += len(packer.compress(name.name.encode() + data))  # names can carry weights too
        modules += 1
        if modules > MAX_MODULES:
            raise BadSubmission(f"it has more than {MAX_MODULES} .py files beside each other")
        _write(folder / name.name, data)
    if packed + len(packer.flush()) > MAX_PACKED:
        raise BadSubmission(
            f"its .py files have more than {MAX_PACKED >> 10} KiB even when compressed; weights "
            "belong into checkpoints/"
        )
    return total


def _copy_checkpoints(files: list[tuple[PurePosixPath, Read]], folder: Path, left: int) -> None:
    """Copy these files as long as they are not too large. left: bytes for all together."""
    for name, read in files:
        most = min(left, MAX_ABOUT if name.suffix == ".json" else MAX_CHECKPOINT)
        data, target = read(most + 1), folder / name.name
        if len(data) > most:
            data, target = b"", folder / f"{name.name}{TOO_LARGE}"
        left -= len(data)
        _write(target, data)


def _write(target: Path, data: bytes) -> None:
    try:
        target.write_bytes(data)
    except OSError as error:  # a name that is too long, a full disk
        raise BadSubmission(f"{target.name!r:.80} cannot be copied: {error.strerror}") from None


def _zip_files(source: Path) -> Iterator[tuple[PurePosixPath, Read]]:
    try:
        with source.open("rb") as file:
            data = file.read(MAX_ARCHIVE + 1)
        if len(data) > MAX_ARCHIVE:
            raise BadSubmission(f"{source.name} has more than {MAX_ARCHIVE >> 20} MiB")
        if data.count(b"PK\1\2") > 2 * MAX_FILES:  # each entry's mark, before objects are made
            raise BadSubmission(f"{source.name} has more than {MAX_FILES} entries")
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except BadSubmission:
        raise
    except Exception as error:  # zipfile raises many kinds for a file that was made to annoy
        raise BadSubmission(f"{source.name} is not a zip file that can be read: {error}") from None
    if len(entries) > MAX_FILES:
        raise BadSubmission(f"{source.name} has more than {MAX_FILES} entries")
    for entry in entries:
        text = entry.filename.replace("\\", "/")  # some old tools of Windows
        name = PurePosixPath(text)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if text.endswith("/") or kind not in (0, stat.S_IFREG):  # no links, pipes, devices
            continue
        if name.is_absolute() or ".." in name.parts:
            continue

        def read(limit: int, entry: zipfile.ZipInfo = entry) -> bytes:
            # Others (LZMA) may ask for gigabytes of memory for a dictionary.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadSubmission(f"{entry.filename} is not packed by store or deflate")
            try:
                with archive.open(entry) as file:
                    return file.read(limit)
            except Exception as error:  # zlib.error, BadZipFile, RuntimeError (encrypted), ...
                raise BadSubmission(f"{entry.filename} cannot be unpacked: {error}") from None

        yield name, read


def _folder_files(source: Path) -> Iterator[tuple[PurePosixPath, Read]]:
    if not source.is_dir():
        raise BadSubmission(f"there is no folder or zip {source}")
    seen = 0
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != "__pycache__")
        if len(Path(folder).relative_to(source).parts) > 2:
            folders.clear()
        for name in names:
            seen += 1
            if seen > MAX_FILES:
                raise BadSubmission(f"{source.name} has more than {MAX_FILES} files")
            path = Path(folder) / name

            def read(limit: int, path: Path = path) -> bytes:
                try:
                    handle = os.open(path, READING)
                    with os.fdopen(handle, "rb") as file:
                        return file.read(limit)
                except OSError as error:
                    raise BadSubmission(f"{path.name} cannot be read: {error.strerror}") from None

            if stat.S_ISREG(path.lstat().st_mode):
                yield PurePosixPath(path.relative_to(source).as_posix()), read
