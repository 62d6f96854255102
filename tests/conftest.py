"""What several tests share: small data sets, real data, and the programs as processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]
REAL_DATA = REPO.parent / "shared" / "data"
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses at once: no test talks to the internet

sys.path.insert(0, str(REPO))


@pytest.fixture(scope="session")
def tissue_npz(tmp_path_factory) -> Path:
    """640 / 128 / 128 stand-in images in a compressed file of the MedMNIST layout."""
    from pathlab.data.tissue import draw_split

    arrays = {}
    for seed, (split, size) in enumerate({"train": 640, "val": 128, "test": 128}.items()):
        images, labels = draw_split(size, seed)
        labels[:9] = range(9)  # every class is there, whatever the draw
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None].astype(np.uint8)}
    path = tmp_path_factory.mktemp("data") / "tissue.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def small_arrays() -> dict[str, np.ndarray]:
    """A valid data set of 12 / 6 / 6 gray images in the MedMNIST layout, to be damaged."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in {"train": 12, "val": 6, "test": 6}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(size, dtype=np.uint8) % 3)[:, None]
    return arrays


@pytest.fixture(scope="session")
def crc5() -> Path:
    return real_data("crc5.npz")


@pytest.fixture(scope="session")
def pneumoniamnist() -> Path:
    return real_data("pneumoniamnist.npz")


def hear_ctrl_c() -> None:
    """preexec_fn of programs that are to be stopped: below a background shell they would begin with
    Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def real_data(name: str) -> Path:
    path = REAL_DATA / name
    if not path.is_file():
        pytest.skip(f"real data is not here: {path}")
    return path


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, one thread, no network, a home without data sets."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), NOWHERE)
    return {**os.environ, "OMP_NUM_THREADS": "1", "no_proxy": "", **proxies, **changes}


def command(script: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(REPO / script), *map(str, arguments)]


def run_script(
    script: str, *arguments: str | Path, cwd: Path, **changes: str
) -> subprocess.CompletedProcess:
    """Run a program of the repository in the folder `cwd` and wait for it."""
    return subprocess.run(
        command(script, *arguments),
        cwd=cwd,
        env=environment(HOME=f"{cwd}-home", **changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_user_error(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, no traceback, and a message that has all the words."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"


@pytest.fixture(scope="session")
def handout(tmp_path_factory) -> Path:
    """What students get."""
    folder = tmp_path_factory.mktemp("handout") / "new" / "pathlab-assignment"
    arguments = [sys.executable, "-m", "grader", "handout", folder]
    done = subprocess.run(arguments, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder
