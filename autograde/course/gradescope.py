"""The autograder zip that Gradescope takes.

Gradescope unpacks it to /autograder/source, runs setup.sh once when the image is built (as root on
Ubuntu, with network), and for each submission /autograder/source/run_autograder. The submission
lies in /autograder/submission; /autograder/results/results.json is what it shows.
Source: https://gradescope-autograders.readthedocs.io/en/latest/specs/
"""

import io
import zipfile
from pathlib import Path

from pathlab.files import write_atomically

REPO = Path(__file__).resolve().parents[2]
# The reference solutions are not needed, so they are not there to be found.
FILES = ("pyproject.toml", "requirements.txt", "LICENSE")
FOLDERS = ("grader", "autograde", "pathlab")
DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same files, the same bytes

# PyTorch's own index has CPU builds called 2.13.0+cpu, which pip takes for newer than PyPI's 2.13.0
# and its several GB of CUDA libraries.
SETUP = """#!/usr/bin/env bash
# Runs once, when Gradescope builds the image.
set -euo pipefail
cd "$(dirname "$0")"
apt-get update
apt-get install -y --no-install-recommends bubblewrap python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/python -m pip install --no-cache-dir \\
    --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt
"""

RUN = """#!/usr/bin/env bash
# Runs for each submission, and leaves a results.json whatever happens. The two variables are for
# tries outside of Gradescope.
root="${AUTOGRADER_ROOT:-/autograder}"
python="${AUTOGRADER_PYTHON:-$root/venv/bin/python}"
results="$root/results/results.json"
mkdir -p "$root/results"
cd "$root/source" || exit 1
# One minute less than Gradescope allows: after that, the points so far count.
timeout --signal=INT --kill-after=20 SECONDS "$python" -m pytest -c pyproject.toml --rootdir . \\
    grader --submission="$root/submission" --results="$results" -q -p no:cacheprovider
code=$?
if { [ $code = 124 ] || [ $code = 137 ]; } && [ -s "$results" ]; then
    echo "The grading was stopped after SECONDS seconds."
elif { [ $code != 0 ] && [ $code != 1 ]; } || [ ! -s "$results" ]; then
    reason="The grading itself failed (exit code $code), which says nothing about your code."
    printf '{"score": 0, "output": "%s Tell your instructor.", "tests": []}\\n' "$reason" \\
        > "$results"
fi
exit 0
"""


def write_autograder(file: Path, minutes: int) -> None:
    """Write the zip, atomically; the same repository gives the same bytes.

    minutes: what Gradescope is set to allow a submission, at least 2. Raises UserError.
    """
    entries = {"setup.sh": SETUP, "run_autograder": RUN}
    entries["run_autograder"] = RUN.replace("SECONDS", str(60 * minutes - 60))
    entries = {name: text.encode() for name, text in entries.items()}
    for name in FILES:
        entries[name] = (REPO / name).read_bytes()
    for folder in FOLDERS:
        for path in (REPO / folder).rglob("*"):
            name = path.relative_to(REPO)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and not hidden and path.suffix not in (".pyc", ".tmp"):
                entries[name.as_posix()] = path.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix: the mode below is understood
            mode = 0o755 if name in ("setup.sh", "run_autograder") else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    write_atomically(file, packed.getvalue())
