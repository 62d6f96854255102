"""The official MedMNIST files: what exists, where it lies, and how to get it."""

import hashlib
import http.client
import importlib.util
import runpy
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from pathlab.errors import UserError
from pathlab.files import file_written_atomically, make_folder

PROBE_SECONDS = 4.0  # so that "no network" is known within five seconds in all
STALL_SECONDS = 30.0  # a download that receives nothing for so long has failed
BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class OfficialSet:
    """A 2-D MedMNIST set of one label per image, at 28x28, as `medmnist.INFO` describes it."""

    name: str
    url: str
    md5: str
    class_names: tuple[str, ...]


@cache
def _table() -> dict[str, dict]:
    """`medmnist.INFO`, loaded without the package, which takes over a second to import, since it
    imports pandas, scikit-learn and scikit-image."""
    package = importlib.util.find_spec("medmnist")
    if package is None or package.origin is None:
        raise UserError("the package medmnist is missing: pip install -r requirements.txt")
    return runpy.run_path(str(Path(package.origin).with_name("info.py")))["INFO"]


def why_unsupported(name: str) -> str | None:
    """Why an existing MedMNIST set cannot be used, or None."""
    if name in _table() and name.endswith("3d"):
        return "it is three-dimensional"
    if name in _table() and _table()[name]["task"].startswith("multi-label"):
        return "it has several labels per image"
    return None


@cache
def official_sets() -> dict[str, OfficialSet]:
    """All sets that the course can use, by name, from the installed `medmnist` package."""
    return {
        name: OfficialSet(name, info["url"], info["MD5"], tuple(info["label"].values()))
        for name, info in _table().items()
        if not why_unsupported(name)
    }


def find_official(official: OfficialSet, data_root: Path) -> Path | None:
    """The set's file in `data_root` or in MedMNIST's own folder (~/.medmnist), if it is there."""
    for folder in (data_root, Path.home() / ".medmnist"):
        path = folder / f"{official.name}.npz"
        if path.is_file():
            return path
    return None


def is_reachable(url: str) -> bool:
    """Whether the server has the file, known within PROBE_SECONDS.

    The request is made in a thread, which is abandoned if it hangs: looking up a host's name can
    take longer than any time-out that Python can set.
    """
    found: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "PathLab"})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:
                found.append(response.status == 200)
        except (OSError, ValueError, http.client.HTTPException):
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return found == [True]


def download(official: OfficialSet, data_root: Path) -> Path:
    """Download the set into `data_root` and return its path. It appears there whole or not at all.

    Raises UserError, which says how to get it by hand.
    """
    target = data_root / f"{official.name}.npz"
    by_hand = (
        f"Download {official.url} on any machine and save it as {target} "
        f"(MD5 {official.md5}). `--dataset synthetic` works without it."
    )
    if not is_reachable(official.url):
        raise UserError(
            f"{official.name} is not in {data_root} and its server cannot be reached. {by_hand}"
        )
    make_folder(data_root)
    print(f"downloading {official.name} to {target}", flush=True)
    try:
        with file_written_atomically(target) as write:
            digest = _fetch(official.url, write)
            if digest != official.md5:
                raise ValueError(f"its MD5 is {digest}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"downloading {official.name} failed ({error}). {by_hand}") from error
    return target


def _fetch(url: str, write: Callable[[bytes], object]) -> str:
    """Pass the file's blocks to `write`, with a progress bar, and return its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "PathLab"})
    with urllib.request.urlopen(request, timeout=STALL_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            while block := response.read(BLOCK):
                write(block)
                digest.update(block)
                bar.update(len(block))
    return digest.hexdigest()
