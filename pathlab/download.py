"""The official MedMNIST files: what exists, where it lies, and how to get it."""

import importlib.util
import os
import socket
import tempfile
import threading
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pathlab.errors import UserError
from pathlab.files import make_folder

PROBE_SECONDS = 4.0  # for the answer "no network" to come within five seconds in all
STALL_SECONDS = 30.0  # a download that brings nothing for so long has failed


@dataclass(frozen=True)
class OfficialSet:
    """A 2-D MedMNIST set of one label per image, at 28x28, as `medmnist.INFO` describes it."""

    name: str
    url: str
    md5: str
    class_names: tuple[str, ...]


@cache
def official_sets() -> dict[str, OfficialSet]:
    """All sets that the course can use, by name, from the installed `medmnist` package.

    Its table is loaded by itself: importing the whole package takes over a second, since that
    brings pandas, scikit-learn and scikit-image.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None:
        raise UserError("the package medmnist is missing: pip install -r requirements.txt")
    table = Path(package.origin).with_name("info.py")
    spec = importlib.util.spec_from_file_location("medmnist_info", table)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        name: OfficialSet(name, info["url"], info["MD5"], tuple(info["label"].values()))
        for name, info in module.INFO.items()
        if not name.endswith("3d") and not info["task"].startswith("multi-label")
    }


def find_official(official: OfficialSet, data_root: Path) -> Path | None:
    """The set's file in `data_root` or in MedMNIST's own folder (~/.medmnist), if it is there."""
    for folder in (data_root, Path.home() / ".medmnist"):
        path = folder / f"{official.name}.npz"
        if path.is_file():
            return path
    return None


def is_reachable(url: str) -> bool:
    """Whether the server answers, known within PROBE_SECONDS.

    The question is put in a thread that is left behind, since looking a host's name up can hang
    for longer than any time-out that Python can set.
    """
    answered = threading.Event()

    def ask():
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "PathLab"})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:
                if response.status == 200:
                    answered.set()
        except (OSError, ValueError):
            pass
        finished.set()

    finished = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    finished.wait(PROBE_SECONDS)
    return answered.is_set()


def download(official: OfficialSet, data_root: Path) -> Path:
    """Fetch the set into `data_root` and return its path. It appears there whole or not at all.

    Raises UserError that says how to get it by hand.
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
    from pathlab.torchvision_import import torchvision  # slow to import, needed only here

    make_folder(data_root)
    previous_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_root) as folder:
            print(f"downloading {official.name} to {target}")
            torchvision.datasets.utils.download_url(official.url, folder, target.name, official.md5)
            os.replace(Path(folder) / target.name, target)
    except (OSError, RuntimeError) as error:
        raise UserError(f"downloading {official.name} failed ({error}). {by_hand}") from error
    finally:
        socket.setdefaulttimeout(previous_timeout)
    return target
