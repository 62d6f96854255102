"""Archives and folders that are not what they seem."""

import os
import socket
import stat
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hostile.attack import CM, CT, SM, ST, Attack, Marks, reference

MODULES = (CM, CT, SM, ST)


def zipped(
    change: Callable[[zipfile.ZipFile, Marks], None], honest: bool = True
) -> Callable[[Path, Marks], Path]:
    """Makes a zip of the honest modules, and what `change` does to it."""

    def make(folder: Path, marks: Marks) -> Path:
        path = folder.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            if honest:
                for name in MODULES:
                    archive.writestr(f"work/{name}", reference(name))
            change(archive, marks)
        return path

    return make


def entry(name: str, mode: int, text: str) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info, text


def slip(archive: zipfile.ZipFile, marks: Marks) -> None:
    up = "../" * 12
    for name in (
        f"{up}{marks.canary}/slipped",
        f"work/{up}{marks.canary}/slipped.py",
        f"{marks.canary}/absolute",
        f"work/checkpoints/{up}{marks.canary}/x.pt",
        f"work\\..\\..{marks.canary}\\back",
    ):
        archive.writestr(name.replace("//", "/"), "slipped")
    archive.writestr(zipfile.ZipInfo(f"{marks.canary}/canary.txt"), "slipped")


def links(archive: zipfile.ZipFile, marks: Marks) -> None:
    archive.writestr(*entry(f"work/{CM}", stat.S_IFLNK | 0o777, f"{marks.canary}/canary.txt"))
    archive.writestr(*entry("work/checkpoints", stat.S_IFLNK | 0o777, marks.canary))
    archive.writestr("work/checkpoints/classification.pt", "x")
    for name in (CT, SM, ST):
        archive.writestr(f"work/{name}", reference(name))


def special(archive: zipfile.ZipFile, marks: Marks) -> None:
    for name, kind in {CM: stat.S_IFIFO, CT: stat.S_IFCHR, SM: stat.S_IFBLK}.items():
        archive.writestr(*entry(f"work/{name}", kind | 0o666, "x"))
    archive.writestr(*entry(f"work/{ST}", stat.S_IFSOCK | 0o666, "x"))


def bomb(archive: zipfile.ZipFile, marks: Marks) -> None:
    with archive.open("work/data.py", "w", force_zip64=True) as file:
        for _ in range(128):
            file.write(bytes(8 << 20))


def weight_bomb(archive: zipfile.ZipFile, marks: Marks) -> None:
    for task in ("classification", "segmentation"):
        archive.writestr(f"work/checkpoints/{task}.json", '{"model": "cnn"}')
        for suffix in ("pt", "safetensors"):
            archive.writestr(f"work/checkpoints/{task}.{suffix}", bytes(60 << 20))


def many(archive: zipfile.ZipFile, marks: Marks) -> None:
    for number in range(30_000):
        archive.writestr(zipfile.ZipInfo(f"work/{number}"), "")


def twice(archive: zipfile.ZipFile, marks: Marks) -> None:
    for text in ("raise RuntimeError('the second')", "raise RuntimeError('the last')"):
        archive.writestr(f"work/{CM}", text)


def lzma(archive: zipfile.ZipFile, marks: Marks) -> None:
    archive.writestr("work/more.py", "x = 1", compress_type=zipfile.ZIP_LZMA)


def damaged(folder: Path, marks: Marks) -> Path:
    path = zipped(lambda archive, marks: None)(folder, marks)
    data = bytearray(path.read_bytes())
    data[80:2000] = os.urandom(1920)
    path.write_bytes(data)
    return path


def cut_off(folder: Path, marks: Marks) -> Path:
    path = zipped(lambda archive, marks: None)(folder, marks)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def folder_links(folder: Path, marks: Marks) -> None:
    (folder / CM).unlink()
    (folder / CM).symlink_to(f"{marks.canary}/canary.txt")
    (folder / "checkpoints").symlink_to(marks.canary)
    (folder / "loop").symlink_to(folder)


def folder_special(folder: Path, marks: Marks) -> None:
    (folder / CM).unlink()
    os.mkfifo(folder / CM)
    (folder / CT).unlink()
    unix = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the whole path is too long for a socket's name
    unix.bind(CT)
    os.chdir(here)
    unix.close()
    (folder / ("x" * 250 + ".py")).write_text("")
    (folder / "more\udcff.py").write_text("raise RuntimeError")


def many_names(folder: Path, marks: Marks) -> None:
    for number in range(60):
        (folder / f"w{number}_{'weights' * 20}.py").write_text("")


def packed_source(folder: Path, marks: Marks) -> None:
    text = np.random.default_rng(0).bytes(100_000).hex()
    (folder / "weights.py").write_text(f"W = {text!r}\n")


NOTHING = "cannot be graded"
MISSING = "the file classification_models.py is missing"
archive = partial(Attack, once=True)
ATTACKS = {
    "zip_slip": archive(
        "a zip with paths that lead outside", zipped(slip), tests=("1.1",), points=1
    ),
    "zip_links": archive("a zip with symbolic links", zipped(links, honest=False), says=MISSING),
    "zip_special": archive(
        "a zip of pipes and devices", zipped(special, honest=False), says=NOTHING
    ),
    "zip_bomb": archive("a source file of 1 GB in 1 MB", zipped(bomb), says="more than 512 KiB"),
    "zip_weights": archive(
        "240 MB of weight files in 240 KB",
        zipped(weight_bomb),
        tests=("1.13", "2.16"),
        says="more, which is not read",
    ),
    "zip_many": archive("30000 entries", zipped(many), says="more than 20000 entries"),
    "zip_twice": archive("two files of the same name", zipped(twice), says="the last"),
    "zip_lzma": archive(
        "a kind of compression that may ask for 4 GB",
        zipped(lzma),
        says="not packed by store or deflate",
    ),
    "zip_damaged": archive("a zip with damaged data", damaged, says=NOTHING),
    "zip_cut": archive("half a zip", cut_off, says=NOTHING),
    "folder_links": archive("a folder with links to what is outside", folder_links, says=MISSING),
    "folder_special": archive(
        "a folder with a pipe and a socket for modules", folder_special, says=MISSING
    ),
    "packed_source": archive(
        "400 KB of weights in the source", packed_source, says="belong in(to)? checkpoints/"
    ),
    "names_of_files": archive(
        "brings weights in the names of files", many_names, says="more than 50 .py files"
    ),
}
