"""The process that meets a submission's code. It runs inside the sandbox.

python -I worker.py THREADS SUBMISSION OPERATIONS...

Reads requests from standard input and returns results on standard output (protocol.py). Nothing
that it returns is believed by the trusted side; it only carries arrays to and fro. The submission
prints to standard error. What can be requested is the course's: its modules OPERATIONS, which lie
beside this file in the sandbox and fill registry.OPERATIONS.
"""

import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograde.untrusted import protocol, registry
else:  # in the sandbox the files lie beside each other
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import protocol
    import registry

# A copy of its own, so that a module may make a folder beside itself. Bytes alone: where files are
# guarded by Landlock, nobody may change modes and times.
FOLDER = Path(tempfile.mkdtemp())
for _path in Path(sys.argv[2]).iterdir():
    shutil.copyfile(_path, FOLDER / _path.name)
registry.REQUESTS, registry.REPLIES = os.dup(0), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
os.environ["OMP_NUM_THREADS"] = sys.argv[1]

for _module in sys.argv[3:]:
    __import__(_module)  # fills the registry


def failure(error: BaseException) -> dict[str, Any]:
    """What went wrong, with the lines of the submission that it went through."""
    frames = [
        {"file": Path(f.filename).name, "line": f.lineno, "text": (f.line or "")[:200]}
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename).parent == FOLDER
    ]
    if isinstance(error, SyntaxError) and error.filename:
        text = (error.text or "").strip()[:200]
        frames.append({"file": Path(error.filename).name, "line": error.lineno, "text": text})
    return {
        "type": type(error).__name__,
        "refused": isinstance(error, registry.Refused),
        "message": str(error)[:2000],
        "frames": frames[-3:],
        "name": str(getattr(error, "name", None) or ""),
    }


def reply(request: protocol.Message) -> bytes:
    """The encoded reply to one request: a result, or a description of what was raised."""
    head, arrays = request
    try:
        result, out = registry.OPERATIONS[head["op"]](head["args"], arrays)
        return protocol.encode({"id": head["id"], "result": result}, out)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of the submission too
        try:
            problem = failure(error)
        except BaseException:  # an exception that cannot even be described
            problem = failure(Exception())
        return protocol.encode({"id": head["id"], "error": problem})


def main() -> None:
    """Reply to requests until the pipe is closed."""
    sys.path.insert(0, str(FOLDER))
    while True:
        protocol.send(registry.REPLIES, reply(protocol.receive(registry.REQUESTS)))


if __name__ == "__main__":
    main()
