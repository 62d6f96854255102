"""python -m capstones NAME COMMAND: train, use and evaluate one of the four systems."""

import importlib
import sys

from pathlab.errors import UserError, run_command

SYSTEMS = {
    "multimodal": "is a cell cancerous? From a bright-field and a fluorescence image",
    "cell_lines": "which of nine cell lines? From three stained channels",
    "cervical": "cervical cells: segment cytoplasm and nucleus, then classify",
    "spine": "pathology in a spine X-ray? An ensemble of three networks",
}
USAGE = (
    "usage: python -m capstones NAME COMMAND [--help]\n\n"
    + "\n".join(f"  {name:<12}{about}" for name, about in SYSTEMS.items())
    + "\n\nEvery system has a demo, offline and in two minutes: python -m capstones NAME demo"
)


def main() -> int | None:
    """The exit code. Raises UserError for an unknown name and what a system refuses."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(USAGE)
        return 0 if len(sys.argv) > 1 else 2
    name = sys.argv[1].replace("-", "_")
    if name not in SYSTEMS:
        raise UserError(f"there is no capstone {sys.argv[1]!r}: choose one of {', '.join(SYSTEMS)}")
    try:
        system = importlib.import_module(f"capstones.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("capstones", "pathlab"):
            raise
        raise UserError(
            f"{error.name} is not installed: python -m pip install -r requirements-capstones.txt"
        ) from error
    return system.main(sys.argv[2:])


if __name__ == "__main__":
    run_command(main)
