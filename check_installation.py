"""Say what works on this machine and what to type next (provided).

python check_installation.py

Exits 1 if something that the course needs is missing, else 0.
"""

import argparse
import importlib
import importlib.metadata
import platform
import sys
from pathlib import Path

NEEDED = ["torch", "medmnist", "numpy", "sklearn", "matplotlib", "tqdm", "safetensors"]
NEEDED += ["filelock", "jinja2", "optuna", "pandas", "plotly", "pytest"]
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where pip's name is not the one to import


def report(works: bool, name: str, text: str, mark: str = "ok") -> bool:
    """Print a line about one thing; `mark` says how well it works, if it does. Returns `works`."""
    print(f"[{mark if works else 'MISSING':^7}] {name:<14} {text}")
    return works


def check_python() -> bool:
    """Whether this Python is new enough."""
    version = platform.python_version()
    supported = sys.version_info >= (3, 10)
    return report(supported, "Python", version + ("" if supported else ": 3.10 to 3.13 is needed"))


def check_package(name: str) -> bool:
    """Whether a package is installed and can be imported."""
    distribution = DISTRIBUTIONS.get(name, name)
    try:
        version = importlib.metadata.version(distribution)
        if name != "medmnist":  # it imports torchvision, which is checked below
            importlib.import_module(name)
    except Exception as error:  # a broken package can raise anything
        return report(False, name, f"{error}. Type: pip install -r requirements.txt")
    return report(True, name, version)


def check_device() -> bool:
    """Say which device trainings use, and how many threads."""
    import torch

    from pathlab.training.device import pick_device

    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return report(True, "device", f"{device} ({name}), {torch.get_num_threads()} CPU threads")


def check_torchvision() -> bool:
    """Say whether torchvision fits the installed torch; nothing depends on it."""
    try:
        from pathlab.torchvision_import import HAS_COMPILED_OPERATORS, torchvision
    except Exception as error:
        return report(True, "torchvision", f"{error} (the course does not need it)", "note")
    operators = "with" if HAS_COMPILED_OPERATORS else "without"
    text = f"{torchvision.__version__}, {operators} its compiled operators (not needed here)"
    return report(True, "torchvision", text)


def check_data(data_root: Path) -> bool:
    """Say where PathMNIST is, or where it will come from."""
    from pathlab.data.download import find_official, is_reachable, official_sets

    pathmnist = official_sets()["pathmnist"]
    if path := find_official(pathmnist, data_root):
        return report(True, "PathMNIST", f"on disk: {path}")
    if is_reachable(pathmnist.url):
        return report(True, "PathMNIST", "not on disk; it is downloaded on first use (206 MB)")
    text = "neither on disk nor reachable: drawn stand-in images are used instead. For the real "
    text += f"ones save {pathmnist.url} as {data_root / 'pathmnist.npz'} (MD5 {pathmnist.md5})"
    return report(True, "PathMNIST", text, "note")


def check_writing(folder: Path) -> bool:
    """Whether files can be written to a folder, which is left as it was."""
    from pathlab.errors import UserError
    from pathlab.files import make_folder

    try:
        existed = folder.exists()
        make_folder(folder)
        if not existed:
            folder.rmdir()
    except UserError as error:
        return report(False, "write access", str(error))
    return report(True, "write access", str(folder.resolve()))


def main() -> int:
    """Run all checks; 1 if something is missing, else 0."""
    parser = argparse.ArgumentParser(description="Check that the course can run here.")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="default: ./data")
    args = parser.parse_args()
    works = check_python()
    for name in NEEDED:
        works &= check_package(name)
    if works:
        works = check_device() and check_torchvision() and check_data(args.data_root)
        for folder in (args.data_root, Path("runs")):
            works &= check_writing(folder)
    if not works:
        print("\nSomething that the course needs is missing. Fix the problems above, then type:")
        print("  python check_installation.py")
        return 1
    print("\nEverything that the course needs is here. Next, type:")
    print("  python classification_main.py --model cnn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
