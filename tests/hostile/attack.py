"""What an attack is, and how the *.attacks files say it.

    ## close_pipe: closes the pipe and stays
    @ tests 1.1                     the tests it tries to pass; 1.1 and 1.2 if this is left out
    @ says did not finish           a regular expression in the verdicts: it was really carried out
    @ options --patience=0.1        of the grading; --fast if this is left out
    @ instead with messages         the text below is all there is in classification_models.py
    os.closerange(3, 200)

`@ instead FILE ...` is for other files; `before` and `after` put the text before or after the
honest module, and `attempts` is `instead` with a verdict: nothing of it may succeed. `with` puts
one of SNIPPETS before it. Further: `@ points 1`, that honest parts earn; `@ copy FILE ...`, modules
of a package of the repository, put beside the others; `@ once`, the worker's isolation has nothing
to do with it; `@ alone`, it uses up so much, or is stopped by a limit so close to another one, that
no other test may run meanwhile.

Names in capitals between @ signs are what only one run knows (Marks), or what the attacks know of
the grader (INSIDE). All attacks are bounded by themselves as well, so that a sandbox that fails
does not harm the machine that tests it: at most 2000 processes, 2 GB on disk, 6 GB of memory, and
no signal to anybody but the parent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from conftest import REPO
from grading import INSIDE

CM, CT = "classification_models.py", "classification_train.py"
SM, ST = "segmentation_models.py", "segmentation_train.py"


class Marks(NamedTuple):
    """What one run puts into the attacks' texts."""

    token: str  # in the command line of every process that an attack starts
    canary: str  # a folder outside, which everybody may write, with canary.txt
    decoy: str  # looks like the workspace of another grading
    results: str  # results.json
    repo: str
    tcp: str
    udp: str
    unix: str

    def fill(self, text: str) -> str:
        """The text with all marks replaced."""
        for name, value in {**self._asdict(), **INSIDE}.items():
            text = text.replace(f"@{name.upper()}@", value)
        return text


Make = Callable[[Path, Marks], "Path | None"]  # changes the folder, or makes a zip and returns it


@dataclass
class Attack:
    """One hostile submission, and what its grading must come to."""

    about: str
    make: Make
    tests: tuple[str, ...] = ("1.1", "1.2")  # these import classification_models.py
    points: float = 0.0  # that its honest parts earn
    says: str = ""  # a regular expression, in the verdicts
    options: tuple[str, ...] = ("--fast",)
    once: bool = False
    alone: bool = False


# Payloads call attempt(what, function) and verdict(). Nothing may succeed.
ATTEMPTS = """
import os, socket, subprocess, sys, threading, time
_won = []
def attempt(what, function):
    try:
        result = function()
    except BaseException:
        return
    if result is not False:
        _won.append(f"{what}: {result!r:.200}")
def verdict():
    text = "GOT IN: " + "; ".join(_won) if _won else "all was denied"
    raise RuntimeError(text)  # the verdict quotes this line
"""
# Runs where nothing of a submission may run.
ESCAPE = "open('@CANARY@/' + __name__, 'w').write('run outside of the worker')\n"

SNIPPETS = {
    "attempts": ATTEMPTS,
    "escape": ESCAPE,
    # The frame of the worker's function that replies, and so the current request.
    "messages": """
import json, os, struct, sys, threading, time
def request_of(frame):
    while frame and "@REQUEST@" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["@REQUEST@"] if frame else None
def frame_bytes(head, body=b"", arrays=()):
    text = json.dumps({"head": head, "arrays": list(arrays)}).encode()
    return struct.pack("<II", len(text), len(body)) + text + body
REPLIES = @REPLIES@
""",
    "sleeper": """
import os, signal, subprocess, sys, time
CODE = "import signal as s, time; [s.signal(n, s.SIG_IGN) for n in (1, 2, 3, 15)]; time.sleep(300)"
COMMAND = [sys.executable, "-S", "-c", CODE, "@TOKEN@"]
""",
    "stubs": """
import torch
from torch import nn
class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.n, self.w = num_classes, nn.Parameter(torch.zeros(1))
    def forward(self, x):
        return torch.zeros(len(x), self.n)
MLPModel = CNNModel = LinearModel
def get_model(model_name, num_classes=9):
    return LinearModel(num_classes)
def count_parameters(model):
    return 0
""",
    # A classifier without training: a linear map of colour statistics, solved for labels that its
    # own copy of the stand-in gives.
    "solver": """
import numpy as np
import tissue
def features(images):
    parts = [images.mean((2, 3)), images.std((2, 3)), images.amax((2, 3)), images.amin((2, 3))]
    edges = [(images[..., k:, :] - images[..., :-k, :]).abs().mean((2, 3)) for k in (1, 2, 4)]
    x = torch.cat(parts + edges, dim=1)
    x = torch.cat([x, x.square(), torch.ones(len(x), 1)], dim=1)
    return torch.cat([x, *(x[:, i:i + 1] * x[:, :21] for i in range(21))], dim=1)
def solve():
    pictures, labels = tissue.draw_split(3000, 7)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    x, y = features(images).double(), torch.eye(9).double()[torch.from_numpy(labels)]
    return torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]), x.T @ y).float()
""",
}


def reference(name: str) -> str:
    """The honest module's text."""
    return (REPO / name).read_text()


@dataclass
class Text:
    """A block of an attack: a text for some files, before, after or instead of the honest ones."""

    how: str  # "instead", "before", "after", "attempts"
    names: tuple[str, ...]
    lines: list[str] = field(default_factory=list)

    def write(self, folder: Path, marks: Marks) -> None:
        """Write the files into the submission's folder."""
        text = "\n".join([*self.lines, "verdict()\n" if self.how == "attempts" else ""])
        for name in self.names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            first = f"{reference(name)}\n" if self.how == "after" else ""
            last = f"\n{reference(name)}" if self.how == "before" else ""
            path.write_text(first + marks.fill(text) + last)


def read_attacks(path: Path) -> Iterator[tuple[str, Attack]]:
    """The attacks of a file, by name."""
    head, *texts = path.read_text().split("\n## ")
    assert all(line.startswith("# ") or not line for line in head.splitlines()), path
    for text in texts:
        title, *lines = text.splitlines()
        name, _, about = title.partition(": ")
        yield name, _read_attack(about, lines)


def _read_attack(about: str, lines: list[str]) -> Attack:
    texts: list[Text] = []
    copies: list[str] = []

    def make(folder: Path, marks: Marks) -> None:
        for name in marks.fill(" ".join(copies)).split():
            package = ".".join(Path(name).parts[:-1])
            source = reference(name).replace(f"from {package}.", "from ")
            (folder / Path(name).name).write_text(source)
        for text in texts:
            text.write(folder, marks)

    attack = Attack(about, make)
    for line in lines:
        if not line.startswith("@ "):
            texts[-1].lines.append(line)
            continue
        word, _, rest = line[2:].partition(" ")
        if word in ("instead", "before", "after", "attempts"):
            names, _, snippet = f" {rest}".partition(" with ")
            texts.append(Text(word, tuple(names.split()) or (CM,)))
            if word == "attempts":
                snippet, attack.says = "attempts", "all was denied"
            texts[-1].lines += [SNIPPETS[snippet]] if snippet else []
        elif word == "copy":
            copies.append(rest)
        elif word in ("tests", "options"):
            setattr(attack, word, tuple(rest.split()))
        elif word in ("once", "alone"):
            setattr(attack, word, True)
        elif word == "points":
            attack.points = float(rest)
        elif word == "says":
            attack.says = rest
        else:
            raise ValueError(f"unknown line in an attack: {line}")
    return attack
