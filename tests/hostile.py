"""Submissions that try to get points, data or rights that are not theirs: one attack each.

Each attack is made from the reference's four modules. `@NAMES@` in the texts stand for what only
one run knows (see Marks). All attacks are bounded by themselves as well, so that a sandbox that
fails does not harm the machine that tests it: at most 2000 processes, 2 GB on disk, 6 GB of memory,
and no signal to anybody but the parent.
"""

import json
import os
import socket
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPO = Path(__file__).resolve().parents[1]
CM, CT = "classification_models.py", "classification_train.py"
SM, ST = "segmentation_models.py", "segmentation_train.py"
MODULES = (CM, CT, SM, ST)
IMPORTING = ("1.1", "1.2")  # tests that import classification_models.py


class Marks(NamedTuple):
    """What one run puts into the attacks' texts, in capitals between @ signs."""

    token: str  # in the command line of every process that an attack starts
    canary: str  # a folder outside, which everybody may write, with canary.txt
    decoy: str  # looks like the workspace of another grading
    results: str  # results.json
    repo: str
    tcp: str
    udp: str
    unix: str

    def fill(self, text: str) -> str:
        for name, value in self._asdict().items():
            text = text.replace(f"@{name.upper()}@", value)
        return text


Make = Callable[[Path, Marks], "Path | None"]  # changes the folder, or makes a zip and returns it


class Attack(NamedTuple):
    about: str
    make: Make
    tests: tuple[str, ...] = IMPORTING
    most: float = 0.0  # points that its honest parts earn
    says: str = ""  # in the verdicts, to show that the attack was carried out
    options: tuple[str, ...] = ("--fast",)
    once: bool = False  # the worker's isolation has nothing to do with it


SHORT = ("--fast", "--patience=0.1")

# Payloads call attempt(what, function) and verdict(). Nothing may succeed.
PRELUDE = """
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
# The frame of the worker's function that answers, and so the current request.
FRAMES = """
import json, os, struct, sys, threading, time
def request_of(frame):
    while frame and "request" not in frame.f_locals:
        frame = frame.f_back
    return frame.f_locals["request"] if frame else None
def frame_bytes(head, body=b"", arrays=()):
    text = json.dumps({"head": head, "arrays": list(arrays)}).encode()
    return struct.pack("<II", len(text), len(body)) + text + body
ANSWERS = sys.modules["__main__"].ANSWERS
"""


def reference(name: str) -> str:
    return (REPO / name).read_text()


def instead(text: str, name: str = CM) -> Make:
    """A module that is nothing but the attack."""

    def make(folder: Path, marks: Marks) -> None:
        (folder / name).write_text(marks.fill(text))

    return make


def before(text: str, name: str = CM) -> Make:
    """The attack, then the honest module."""

    def make(folder: Path, marks: Marks) -> None:
        (folder / name).write_text(marks.fill(text) + "\n" + reference(name))

    return make


def after(text: str, name: str = CM) -> Make:
    """The honest module, then what replaces parts of it."""

    def make(folder: Path, marks: Marks) -> None:
        (folder / name).write_text(reference(name) + "\n" + marks.fill(text))

    return make


def files(texts: dict[str, str]) -> Make:
    """More files beside the honest modules."""

    def make(folder: Path, marks: Marks) -> None:
        for name, text in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(marks.fill(text))

    return make


def tries(text: str, **more) -> tuple[Make, str]:
    return instead(PRELUDE + text + "\nverdict()\n", **more), "all was denied"


ATTACKS: dict[str, Attack] = {}


def attack(name: str, about: str, make: Make | tuple[Make, str], **more) -> None:
    if isinstance(make, tuple):
        make, more["says"] = make
    assert name not in ATTACKS
    ATTACKS[name] = Attack(about, make, **more)


# --- ending the grading early ---------------------------------------------------------------------

attack(
    "os_exit",
    "ends the process, successfully",
    instead("import os\nos._exit(0)"),
    says="it ended (exit 0)",
)
attack("sys_exit", "raises SystemExit(0)", instead("import sys\nsys.exit(0)"), says="SystemExit")
attack(
    "interrupt",
    "raises KeyboardInterrupt",
    instead("raise KeyboardInterrupt"),
    says="KeyboardInterrupt",
)
attack(
    "pytest_exit",
    "ends pytest, successfully",
    instead("import pytest\npytest.exit('all passed', returncode=0)"),
    says="Exit",
)
attack(
    "pytest_skip",
    "skips the tests",
    instead("import pytest\npytest.skip('no', allow_module_level=True)"),
    says="Skipped",
)
attack(
    "kill_self", "dies by SIGKILL", instead("import os\nos.kill(os.getpid(), 9)"), says="signal 9"
)
attack(
    "segfault", "reads address 0", instead("import ctypes\nctypes.string_at(0)"), says="signal 11"
)
attack(
    "kill_parent",
    "kills the process that started it",
    tries("""
# Inside a pid namespace the parent is its own init, or nobody.
attempt("signal", lambda: os.kill(os.getppid(), 0) if os.getppid() > 1 else False)
for sign in (15, 9):
    attempt("kill", lambda: os.kill(os.getppid(), sign) if os.getppid() > 1 else False)
"""),
)
attack(
    "deep_recursion",
    "overflows the stack of C",
    instead(
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self):\n"
        "        return repr(self)\n    def __getattr__(self, n):\n"
        "        return getattr(self, n + 'x')\nrepr(A())"
    ),
)
attack("fatal_abort", "aborts from C", instead("import os\nos.abort()"), says="signal 6")

# --- patching what decides ------------------------------------------------------------------------

STUBS = """
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
"""
WRONG = ("1.3", "1.4", "1.5", "1.6")
attack(
    "patch_pytest",
    "patches pytest's outcomes and the grader's modules",
    instead(
        STUBS
        + """
import builtins, sys, pytest, _pytest.runner, _pytest.python
_pytest.runner.CallInfo.from_call = lambda *a, **k: None
_pytest.python.Function.runtest = lambda self: None
for name in list(sys.modules):
    if "grader" in name or "checks" in name:
        for key, value in list(vars(sys.modules[name]).items()):
            if callable(value):
                setattr(sys.modules[name], key, lambda *a, **k: None)
builtins.AssertionError = Warning
"""
    ),
    tests=WRONG,
)
attack(
    "patch_numpy",
    "makes NumPy's comparisons always true",
    instead(
        STUBS
        + """
import numpy as np
for name in ("allclose", "array_equal", "isclose", "any", "all"):
    setattr(np, name, lambda *a, **k: True)
    for module in list(__import__("sys").modules.values()):
        if getattr(module, "__name__", "").startswith("numpy") and hasattr(module, name):
            setattr(module, name, lambda *a, **k: True)
"""
    ),
    tests=WRONG,
)
attack(
    "patch_torch",
    "makes PyTorch's losses, comparisons and steps lie",
    instead(
        """
import torch
from torch import nn
torch.allclose = torch.equal = lambda *a, **k: True
torch.Tensor.__eq__ = lambda a, b: torch.ones(1, dtype=torch.bool)
nn.functional.cross_entropy = lambda *a, **k: torch.zeros((), requires_grad=True)
nn.CrossEntropyLoss.forward = lambda *a, **k: torch.zeros((), requires_grad=True)
torch.optim.SGD.step = lambda *a, **k: None
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    return 0.0, 1.0
validate_epoch = lambda model, val_loader, criterion, device: (0.0, 1.0)
def train_model(*a, **k):
    return {k: [1.0] * 5 for k in ("train_loss", "train_acc", "val_loss", "val_acc")}
""",
        CT,
    ),
    tests=("1.7", "1.8", "1.9", "1.10"),
)
attack(
    "patch_worker",
    "replaces every operation of the worker by one that agrees",
    instead("""
import sys
import numpy as np
ops = sys.modules["__main__"].OPS
for name in list(ops):
    ops[name] = lambda args, tensors: (True, {"answer": np.ones((8, 9), np.float32)})
"""),
    tests=("1.1", *WRONG),
)
attack(
    "patch_pipe",
    "patches the reading and writing of the pipe",
    instead(
        STUBS
        + """
import os, sys
protocol = sys.modules["protocol"]
protocol.encode = lambda *a, **k: b"\\x02\\0\\0\\0\\0\\0\\0\\0{}"
os.read = lambda *a: b""
"""
    ),
    says="nonsense",
)

# --- forging messages -----------------------------------------------------------------------------

attack(
    "early_answers",
    "answers before it is asked",
    instead(
        FRAMES
        + """
for number in range(50):
    os.write(ANSWERS, frame_bytes({"id": number, "result": None}))
"""
    ),
    says="an answer to something else",
)
attack(
    "own_answers",
    "answers its own import with the right id, twice",
    instead(
        FRAMES
        + """
head = request_of(sys._getframe())[0]
found = {name: {"kind": "function", "parameters": []} for name in ("get_model", "CNNModel")}
for _ in range(3):
    os.write(ANSWERS, frame_bytes({"id": head["id"], "result": found}))
"""
    ),
    says="nonsense",
)
attack(
    "answering_thread",
    "a thread answers every request at once, before the worker",
    instead(
        FRAMES
        + """
def run():
    done = set()
    while True:
        for frame in list(sys._current_frames().values()):
            request = request_of(frame)
            if request and request[0]["id"] not in done:
                done.add(request[0]["id"])
                os.write(ANSWERS, frame_bytes({"id": request[0]["id"], "result": 1.0}))
threading.Thread(target=run, daemon=True).start()
time.sleep(0.5)
"""
    ),
    tests=("1.1", *WRONG),
)
attack(
    "huge_lengths",
    "announces 8 GB",
    instead(
        FRAMES
        + """
os.write(ANSWERS, struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(1000))
"""
    ),
    says="is too long",
)
attack(
    "dribble",
    "announces 30 MB and sends single bytes",
    instead(
        FRAMES
        + """
os.write(ANSWERS, struct.pack("<II", 100, 30 << 20))
while True:
    os.write(ANSWERS, b" ")
"""
    ),
    tests=("1.1",),
    options=SHORT,
    says="it took longer",
)
attack(
    "deep_json",
    "a header that is nested 500000 times",
    instead(
        FRAMES
        + """
text = b"[" * 500_000
os.write(ANSWERS, struct.pack("<II", len(text), 0) + text)
"""
    ),
    says="not a message",
)
attack(
    "odd_json",
    "headers with NaN, huge numbers, absurd shapes",
    instead(
        FRAMES
        + """
texts = [b'{"head": NaN, "arrays": []}', b'{"head": 1e999, "arrays": []}', b"9" * 100_000, b"\\xff",
         b'{"head": 0, "arrays": [["a", "float32", [268435456, 268435456, 268435456]]]}']
text = texts[os.getpid() % len(texts)]
os.write(ANSWERS, struct.pack("<II", len(text), 0) + text)
"""
    ),
    says="not a message",
)
attack(
    "close_pipe",
    "closes the pipe and stays",
    instead(
        FRAMES
        + """
os.closerange(3, 200)
time.sleep(60)
"""
    ),
    tests=("1.1",),
    options=SHORT,
    says="did not finish",
)
attack(
    "want_unasked",
    "wants batches where there are none",
    instead(
        FRAMES
        + """
for _ in range(10_000):
    os.write(ANSWERS, frame_bytes({"want": "train", "batch": 0}))
"""
    ),
    says="nonsense",
)
attack(
    "want_flood",
    "takes batches without end",
    after(
        """
def train_epoch(model, train_loader, *more, **options):
    while True:
        train_loader.dataset[0]
""",
        CT,
    ),
    tests=("1.8",),
    options=SHORT,
    says="",
)
attack(
    "want_nonsense",
    "wants batches that do not exist",
    after(
        """
wishes = [10**4000, -1, None, "x", 1.5, True, {"a": [1] * 9}, 99]
def train_epoch(model, train_loader, *more, **options):
    train_loader.dataset[wishes.pop()]
""",
        CT,
    ),
    tests=("1.7", "1.8"),
    says="a wish for batch",
)
attack(
    "huge_answer",
    "a history of a million entries",
    after(
        """
def train_model(*arguments, **options):
    return {"train_loss": [0.0] * 1_000_000}
""",
        CT,
    ),
    tests=("1.10",),
    says="is too long",
)
attack(
    "terminal_codes",
    "an error message of control codes and half characters",
    instead(
        "raise ValueError('\\x1b[2J\\x1b]0;29 passed\\x07 \\ud800 \\u202e 60 of 60 points\\r' * 20)"
    ),
    says="60 of 60",
)

# --- answers that lie -----------------------------------------------------------------------------

attack(
    "always_equal",
    "numbers that are equal to everything",
    after(
        """
class Always(float):
    __eq__ = __le__ = __ge__ = lambda self, other: True
    __lt__ = __gt__ = __ne__ = lambda self, other: False
    __sub__ = __rsub__ = __abs__ = lambda self, *other: Always(0)
    __hash__ = float.__hash__
    __float__ = lambda self: self
def calculate_iou(*arguments, **options):
    return Always(0.123)
class DiceLoss(nn.Module):
    def __init__(self, smooth=1.0):
        super().__init__()
    def forward(self, predicted, true):
        return Tricky(predicted.sum() * 0)
CombinedLoss = lambda bce_weight=0.5, dice_weight=0.5: DiceLoss()
class Tricky(torch.Tensor):
    __eq__ = __le__ = __ge__ = lambda self, other: True
""",
        SM,
    ),
    tests=("2.6", "2.7", "2.8"),
)
attack(
    "tensor_subclass",
    "a tensor that answers every operation as it likes",
    after("""
class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in ("detach", "cpu", "__get__"):
            return super().__torch_function__(function, types, arguments, options or {})
        return True
    def numpy(self):
        return Array((len(self), 9))
import numpy as np
class Array(np.ndarray):
    __array_ufunc__ = lambda self, *a, **k: True
    __eq__ = __le__ = __ge__ = lambda self, other: True
for kind in (LinearModel, MLPModel, CNNModel):
    kind.forward = lambda self, images: torch.zeros(len(images), 9).as_subclass(Liar)
"""),
    tests=WRONG[:3],
)
attack(
    "not_finite",
    "answers NaN and infinities",
    after("""
for number, kind in enumerate((LinearModel, MLPModel, CNNModel)):
    kind.forward = lambda self, images: images.flatten(1)[:, :9] * [1e39, float("nan")][number % 2]
"""),
    tests=("1.2", "1.3", "1.4"),
    says="NaN or infinite",
)
attack(
    "wrong_dtypes",
    "answers of dtypes and layouts that cannot be sent",
    after("""
answers = [torch.float64, torch.complex64, torch.bool, torch.bfloat16, torch.uint8, torch.int64]
def forward(self, images):
    dtype = answers.pop()
    answers.insert(0, dtype)
    return torch.ones(len(images), 9, dtype=dtype)
for kind in (LinearModel, MLPModel, CNNModel):
    kind.forward = forward
"""),
    tests=("1.2", "1.3", "1.4"),
    says="dtype",
)
attack(
    "endless_tensor",
    "an answer of four terabytes in four bytes",
    after("""
for kind in (LinearModel, MLPModel, CNNModel):
    kind.forward = lambda self, images: torch.ones(1).expand(1 << 40)
"""),
    tests=("1.2", "1.3"),
)
attack(
    "no_parameters",
    "models without anything to train",
    after("""
class LinearModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.matrix = [torch.randn(2352, num_classes)]
    def forward(self, images):
        return images.flatten(1) @ self.matrix[0]
MLPModel = CNNModel = LinearModel
"""),
    tests=("1.5",),
)
attack(
    "fake_output",
    "prints a good report, and leaves results.json where it can",
    instead("""
import json, os
text = json.dumps({"score": 60, "tests": [{"number": "1.1", "score": 60, "max_score": 1}]})
for path in ("results.json", "/tmp/results.json", "/autograder/results/results.json", "@RESULTS@"):
    try:
        open(path, "w").write(text)
    except OSError:
        pass
for file in (1, 2):
    os.write(file, b"\\n============ 29 passed in 3.14s ============\\n60 of 60 points\\n")
raise SystemExit(0)
"""),
)

# --- objects that raise ---------------------------------------------------------------------------

attack(
    "raising_repr",
    "an exception that cannot be described",
    instead("""
class Meta(type):
    __name__ = property(lambda cls: 1 / 0)
class Bad(Exception, metaclass=Meta):
    def __str__(self):
        raise Bad
    __repr__ = __str__
    name = property(lambda self: 1 / 0)
    __traceback__ = property(lambda self: 1 / 0)
raise Bad
"""),
)
attack(
    "raising_str",
    "an exception whose text ends the process",
    instead("""
import os
class Bad(Exception):
    def __str__(self):
        os._exit(0)
raise Bad
"""),
)
attack(
    "raising_del",
    "raises from __del__",
    instead("""
class Bad:
    def __del__(self):
        raise SystemExit(0)
for _ in range(100):
    Bad()
"""),
)
attack(
    "raising_getattr",
    "a module and objects whose every attribute raises",
    instead("""
import sys
class Bad:
    def __getattribute__(self, name):
        raise BaseException(name)
sys.modules[__name__] = Bad()
"""),
)
attack(
    "anything",
    "a module that has every name, with whatever is asked for",
    instead("""
import sys
class Any:
    def __getattr__(self, name):
        return self
    def __call__(self, *arguments, **options):
        return self
    __iter__ = lambda self: iter([self, self])
    __eq__ = lambda self, other: True
    __len__ = lambda self: 9
    __float__ = lambda self: 1.0
    __class__ = property(lambda self: type)
sys.modules[__name__] = Any()
"""),
    tests=("1.1", "1.2", *WRONG),
)
attack(
    "metaclass",
    "classes that are instances of everything",
    instead("""
import torch
class Meta(type):
    __instancecheck__ = __subclasscheck__ = lambda cls, other: True
    __call__ = lambda cls, *a, **k: cls
    parameters = named_parameters = lambda *a, **k: iter(())
    train = eval = lambda self, *a: self
class LinearModel(metaclass=Meta):
    def __del__(self):
        raise ValueError
    __class__ = torch.nn.Module
MLPModel = CNNModel = LinearModel
def get_model(*arguments):
    return LinearModel
"""),
    tests=("1.2", *WRONG),
)

# --- reading and writing what is not its own ------------------------------------------------------

attack(
    "read_grader",
    "reads the grader, the repository, other gradings, the results",
    tries("""
for path in ("@REPO@/grader/checks/models.py", "@REPO@/pathlab/data/tissue.py", "@REPO@/README.md",
             "@CANARY@/canary.txt", "@DECOY@/submission/classification_models.py", "@RESULTS@",
             "/etc/shadow", "/root/.bashrc"):
    attempt(path, lambda: open(path, "rb").read(60))
for path in ("@REPO@", "@CANARY@", "@DECOY@", "/root/.ssh"):
    # An interpreter in the repository's .venv has to be there; nothing else has.
    attempt("list " + path, lambda: [
        name for name in os.listdir(path) if not sys.prefix.startswith(f"{path}/{name}")
    ] or False)
attempt("import", lambda: __import__("grader.checks"))
attempt("import", lambda: __import__("pathlab.data.tissue"))
"""),
)
attack(
    "read_environment",
    "looks for the grader's environment and memory",
    tries("""
def secrets(path):
    text = open(path, "rb").read(1 << 20)
    return text if b"HOSTILE_SECRET" in text else False
attempt("environ", lambda: os.environ["HOSTILE_SECRET"])
try:
    pids = os.listdir("/proc")
except OSError:
    pids = range(1, 300)
for pid in pids:
    attempt("environ", lambda: secrets(f"/proc/{pid}/environ"))
for pid in {1, os.getppid()} - {0}:
    attempt("memory", lambda: open(f"/proc/{pid}/mem", "rb") and False or pid == os.getppid() == 0)
attempt("files", lambda: [p for fd in range(200) for p in [os.readlink(f"/proc/self/fd/{fd}")]
                          if "@RESULTS@" in p] or False)
"""),
)
attack(
    "write_outside",
    "changes files outside",
    tries("""
path = "@CANARY@/canary.txt"
for mode in ("w", "a", "r+"):
    attempt("open " + mode, lambda: open(path, mode).write("x"))
attempt("new", lambda: open("@CANARY@/new", "w"))
attempt("unlink", lambda: os.unlink(path))
attempt("rename", lambda: os.rename(path, "@CANARY@/moved"))
attempt("link", lambda: os.link(path, "@CANARY@/link"))
attempt("symlink", lambda: os.symlink("/", "@CANARY@/symlink"))
attempt("chmod", lambda: os.chmod(path, 0))
attempt("utime", lambda: os.utime(path))
attempt("truncate", lambda: os.truncate(path, 0))
attempt("decoy", lambda: open("@DECOY@/submission/classification_models.py", "w"))
attempt("results", lambda: open("@RESULTS@", "w"))
attempt("results", lambda: os.unlink("@RESULTS@"))
attempt("grader", lambda: open("@REPO@/grader/@TOKEN@.py", "w"))
"""),
)
attack(
    "write_submission",
    "changes what was handed in, and the worker's source",
    tries("""
here = sys.argv[2]  # its own modules were imported from a copy that belongs to the worker
above = os.path.dirname(here)
for folder in (here, above + "/checkpoints", above, above + "/tools"):
    attempt("new in " + folder, lambda: open(folder + "/new.py", "w"))
    attempt("chmod " + folder, lambda: os.chmod(folder, 0o777))
for path in (here + "/classification_models.py", here + "/classification_train.py",
             above + "/tools/worker.py", above + "/tools/protocol.py"):
    attempt("write " + path, lambda: open(path, "a"))
    attempt("remove " + path, lambda: os.unlink(path))
"""),
)

# --- outliving the grading, and using up the machine ---------------------------------------------

SLEEPER = """
import os, signal, subprocess, sys, time
CODE = "import signal as s, time; [s.signal(n, s.SIG_IGN) for n in (1, 2, 3, 15)]; time.sleep(300)"
COMMAND = [sys.executable, "-S", "-c", CODE, "@TOKEN@"]
"""
attack(
    "background",
    "leaves a process that ignores signals",
    before(
        SLEEPER
        + """
subprocess.Popen(COMMAND)
"""
    ),
    tests=("1.1",),
    most=1,
)
attack(
    "daemon",
    "leaves a daemon: two forks and a session of its own",
    before(
        SLEEPER
        + """
if os.fork() == 0:
    try:
        os.setsid()
    except OSError:
        pass
    if os.fork() == 0:
        os.closerange(0, 200)
        os.execv(COMMAND[0], COMMAND)
    os._exit(0)
"""
    ),
    tests=("1.1",),
    most=1,
)
attack(
    "fork_bomb",
    "starts 2000 processes",
    instead("""
import os, time
made = 0
for _ in range(2000):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
    except OSError:
        time.sleep(0.001)
text = f"GOT IN: {made} processes" if made > 300 else "all was denied"
raise RuntimeError(text)
"""),
    tests=("1.1",),
)
attack(
    "thread_bomb",
    "starts 2000 threads",
    instead("""
import threading, time
made = 0
for _ in range(2000):
    try:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        made += 1
    except RuntimeError:
        time.sleep(0.001)
text = f"GOT IN: {made} threads" if made > 300 else "all was denied"
raise RuntimeError(text)
"""),
    tests=("1.1",),
)
attack("allocate", "asks for 100 GB", instead("x = bytearray(100 * 2**30)"), says="MemoryError")
attack(
    "fill_memory",
    "takes 6 GB piece by piece",
    instead("""
kept = []
for _ in range(96):
    kept.append(b"x" * (64 << 20))
text = "GOT IN: 6 GB"
raise RuntimeError(text)
"""),
    tests=("1.1",),
    says="mem",
)
attack(
    "fill_disk",
    "writes 2 GB",
    instead("""
import os
written = 0
for number in range(16):
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "@CANARY@"):
        try:
            with open(f"{folder}/@TOKEN@{number}", "wb") as file:
                for _ in range(32):
                    written += file.write(bytes(4 << 20))
        except OSError:
            pass
text = f"GOT IN: {written}" if written > 700 << 20 else "all was denied"
raise RuntimeError(text)
"""),
    tests=("1.1",),
)
attack(
    "fill_inodes",
    "makes 60000 files",
    instead("""
made = 0
for number in range(60_000):
    try:
        open(f"@TOKEN@{number}", "w").close()
        made += 1
    except OSError:
        break
text = f"GOT IN: {made}" if made > 40_000 else "all was denied"
raise RuntimeError(text)
"""),
    tests=("1.1",),
)
attack(
    "loop_python",
    "an endless loop",
    instead("while True:\n    pass"),
    tests=("1.1",),
    options=SHORT,
    says="it took longer",
)
attack(
    "loop_c",
    "a regular expression that takes centuries",
    instead("import re\nre.match('(a+)+$', 'a' * 80 + 'b')"),
    tests=("1.1",),
    options=SHORT,
    says="it took longer",
)
attack(
    "loop_torch",
    "a tensor operation that takes hours",
    after("""
def forever(self, images):
    a = torch.ones(6000, 6000)
    while True:
        a = a @ a
CNNModel.forward = forever
"""),
    tests=("1.4",),
    options=SHORT,
    says="it took longer",
)
attack(
    "deaf",
    "ignores all signals and loops",
    instead("""
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
try:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
except (OSError, ValueError):
    pass
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""),
    tests=("1.1",),
    options=SHORT,
    says="it took longer",
)
attack(
    "endless_output",
    "prints without end",
    instead("""
import os
block = b"29 passed\\n" * 6500
for _ in range(30_000):
    os.write(1, block)
    os.write(2, block)
"""),
    tests=("1.1",),
    options=SHORT,
    says="it took longer",
)
attack(
    "endless_tests",
    "each test of many takes its time, until all of it is used up",
    instead("import time\ntime.sleep(100)"),
    tests=("1.1", "1.2", "1.3", "1.4", "1.5"),
    options=("--fast", "--seconds=5"),
    says="all tests together",
    once=True,
)

# --- the network ----------------------------------------------------------------------------------

attack(
    "tcp",
    "connects by TCP",
    tries("""
for host in ("127.0.0.1", "::1", "localhost"):
    attempt("tcp", lambda: socket.create_connection((host, @TCP@), 2).send(b"x"))
def listen():
    server = socket.socket()
    server.bind(("0.0.0.0", 0))
    # In a network of its own, nobody can come.
    return False
attempt("listen", listen)
"""),
)
attack(
    "udp",
    "sends by UDP",
    tries("""
attempt("udp", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @UDP@)) and
        socket.if_nameindex()[1:] != [] )
attempt("broadcast", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)))
"""),
)
attack(
    "dns",
    "looks up a name",
    tries("""
attempt("name", lambda: socket.getaddrinfo("example.org", 80))
for server in ("1.1.1.1", "8.8.8.8", "192.0.2.1"):
    attempt("server", lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", (server, 53)))
"""),
)
attack(
    "unix_socket",
    "connects to a Unix socket, named and abstract",
    tries("""
def connect(name):
    unix = socket.socket(socket.AF_UNIX)
    unix.connect(name)
    return unix.send(b"x")
attempt("named", lambda: connect("@UNIX@"))
attempt("abstract", lambda: connect("\\0@TOKEN@"))
for name in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket"):
    attempt(name, lambda: connect(name))
"""),
)

# --- files that are found rather than imported ----------------------------------------------------

ESCAPE = "open('@CANARY@/' + __name__, 'w').write('run outside of the worker')\n"
attack(
    "conftest",
    "brings a conftest.py",
    files(
        {
            "conftest.py": ESCAPE
            + """
import pytest
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    call.excinfo = None
    return (yield)
""",
            CM: "raise RuntimeError('no models')\n",
        }
    ),
    once=True,
    says="no models",
)
attack(
    "pytest_ini",
    "brings pytest's settings",
    files(
        {
            "pytest.ini": "[pytest]\naddopts = -p evil --co\npythonpath = .\n",
            "tox.ini": "[pytest]\naddopts = -p evil\npythonpath = .\n",
            "setup.cfg": "[tool:pytest]\naddopts = -p evil\n",
            "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p evil'\n",
            "evil.py": ESCAPE,
            CM: "raise RuntimeError('no models')\n",
        }
    ),
    once=True,
    says="no models",
)
attack(
    "dist_info",
    "brings an installed package with a plugin for pytest",
    files(
        {
            "evil-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
            "evil-1.0.dist-info/entry_points.txt": "[pytest11]\nevil = evil\n",
            "evil.py": ESCAPE,
            CM: "raise RuntimeError('no models')\n",
        }
    ),
    once=True,
    says="no models",
)
attack(
    "site_files",
    "brings sitecustomize.py and .pth files",
    files(
        {
            "sitecustomize.py": ESCAPE,
            "usercustomize.py": ESCAPE,
            "evil.pth": "import evil\n",
            "evil.py": ESCAPE,
            CM: "raise RuntimeError('no models')\n",
        }
    ),
    says="no models",
)
SHADOWS = (
    "numpy",
    "torch",
    "json",
    "protocol",
    "worker",
    "os",
    "grader",
    "pathlab",
    "pytest",
    "safetensors",
    "struct",
    "__init__",
    "__main__",
    "conftest",
    "test_part1",
)
attack(
    "shadow_modules",
    "brings modules with the names of others",
    files(
        {
            **{f"{name}.py": ESCAPE for name in SHADOWS},
            "autograde/results.py": ESCAPE,
            "grader/test_part1_classification.py": ESCAPE + "def test_names():\n    pass\n",
            CM: "raise RuntimeError('no models')\n",
        }
    ),
    says="no models",
)


# --- archives and folders -------------------------------------------------------------------------


def zipped(
    change: Callable[[zipfile.ZipFile, Marks], None], honest: bool = True, **options
) -> Make:
    def make(folder: Path, marks: Marks) -> Path:
        path = folder.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
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


NOTHING = "cannot be graded"
MISSING = "the file classification_models.py is missing"
attack(
    "zip_slip",
    "a zip with paths that lead outside",
    zipped(slip),
    tests=("1.1",),
    most=1,
    once=True,
)
attack(
    "zip_links", "a zip with symbolic links", zipped(links, honest=False), once=True, says=MISSING
)
attack(
    "zip_special",
    "a zip of pipes and devices",
    zipped(special, honest=False),
    once=True,
    says=NOTHING,
)
attack(
    "zip_bomb", "a source file of 1 GB in 1 MB", zipped(bomb), once=True, says="more than 512 KiB"
)
attack(
    "zip_weights",
    "240 MB of weight files in 240 KB",
    zipped(weight_bomb),
    tests=("1.13", "2.16"),
    once=True,
    says="more, which is not read",
)
attack("zip_many", "30000 entries", zipped(many), once=True, says="more than 20000 entries")
attack("zip_twice", "two files of the same name", zipped(twice), once=True, says="the last")
attack(
    "zip_lzma",
    "a kind of compression that may ask for 4 GB",
    zipped(lzma),
    once=True,
    says="not packed by store or deflate",
)
attack("zip_damaged", "a zip with damaged data", damaged, once=True, says=NOTHING)
attack("zip_cut", "half a zip", cut_off, once=True, says=NOTHING)
attack(
    "folder_links", "a folder with links to what is outside", folder_links, once=True, says=MISSING
)
attack(
    "folder_special",
    "a folder with a pipe and a socket for modules",
    folder_special,
    once=True,
    says=MISSING,
)

# --- weights --------------------------------------------------------------------------------------

FINAL = ("1.13", "3.1")


class Evil:
    def __init__(self, code: str):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


def pickled(folder: Path, marks: Marks) -> None:
    import torch

    code = marks.fill("import os\n" + ESCAPE.replace("__name__", "'pickle'") + "os._exit(0)")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/classification.json").write_text('{"model": "cnn"}')
    torch.save({"weight": Evil(code)}, folder / "checkpoints/classification.pt")


def bad_safetensors(folder: Path, marks: Marks) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/0.json").write_text("[" * 60_000)
    (folder / "checkpoints/1.json").write_text('{"model": ["cnn"]}')
    (folder / "checkpoints/2.json").write_text('{"model": "linear"}')
    about = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"classifier.weight": about}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(64)
    (folder / "checkpoints/classification.safetensors").write_bytes(data)


attack(
    "pickle",
    "a checkpoint that runs code when it is loaded",
    pickled,
    tests=FINAL,
    says="Weights only load failed",
)
attack(
    "bad_safetensors",
    "a damaged checkpoint, and JSON that is nested 60000 times",
    bad_safetensors,
    tests=FINAL,
    says="raised",
)
attack(
    "packed_source",
    "400 KB of weights in the source",
    files({"weights.py": f"W = {np.random.default_rng(0).bytes(100_000).hex()!r}\n"}),
    once=True,
    says="belong into checkpoints/",
)


def memorised(folder: Path, marks: Marks) -> None:
    """Answers for 3000 images that the stand-in may draw, by their bytes."""
    from pathlab.data.tissue import draw_split

    images, labels = draw_split(3000, 0)
    table = {
        int(image.astype(np.int64).sum()) % 65536: int(y)
        for image, y in zip(images, labels, strict=True)
    }
    known = "".join(str(table.get(key, 0)) for key in range(65536))
    (folder / CM).write_text(
        reference(CM)
        + f"""
KNOWN = torch.tensor([int(c) for c in {known!r}])
def forward(self, images):
    keys = ((images + 1) * 127.5).round().long().sum(dim=(1, 2, 3)) % 65536
    return torch.nn.functional.one_hot(KNOWN[keys], 9).float()
CNNModel.forward = forward
"""
    )
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/classification.json").write_text('{"model": "cnn"}')
    from safetensors.torch import save_file

    import classification_models

    save_file(
        classification_models.CNNModel().state_dict(),
        folder / "checkpoints/classification.safetensors",
    )


attack("memorised", "a table of labels", memorised, tests=FINAL, says="on fresh images")

# --- trainings: more than 100 steps on 100 batches of 32 ------------------------------------------

attack(
    "more_batches",
    "trains on more batches than max_steps",
    after(
        """
honest = train_epoch
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    return honest(model, train_loader, optimizer, criterion, device, None)
""",
        CT,
    ),
    tests=("1.8",),
    says="",
)

# A classifier without training: a linear map of colour statistics, solved for labels that its own
# copy of the stand-in gives.
SOLVED = """
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
"""


def bundled(text: str) -> Make:
    def make(folder: Path, marks: Marks) -> None:
        for name in ("tissue.py", "patterns.py"):
            code = (REPO / "pathlab/data" / name).read_text()
            (folder / name).write_text(code.replace("pathlab.data.patterns", "patterns"))
        after(SOLVED + text)(folder, marks)

    return make


attack(
    "own_generator",
    "draws its own data, and trains on it in __init__",
    bundled("""
class MLPModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.weight = nn.Parameter(solve())
    def forward(self, images):
        return features(images) @ self.weight
"""),
    tests=("1.11",),
    options=(),
    says="before any training",
)
attack(
    "own_generator_late",
    "the same, but only answers well once it was trained",
    bundled("""
class MLPModel(nn.Module):
    def __init__(self, num_classes=9):
        super().__init__()
        self.weight, self.scale = nn.Parameter(solve()), nn.Parameter(torch.ones(()))
        self.steps = 0
    def forward(self, images):
        self.steps += self.training
        sign = 1 if self.steps > 90 else -1
        return sign * (features(images) @ self.weight.detach()) * (0 * self.scale + 1)
"""),
    tests=("1.11",),
    options=(),
    says="after 100 steps",
)
attack(
    "own_batches",
    "trains for as long as it is let",
    after(
        """
honest = train_epoch
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    kept = list(train_loader)
    while True:
        for images, labels in kept:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
        train_loader.dataset[0]
""",
        CT,
    ),
    tests=("1.11",),
    options=("--patience=0.1",),
    says="CPU seconds",
)
CHILDREN = """
import itertools, os, signal, time
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in itertools.count():
        if os.fork() == 0:
            while time.process_time() < %s:
                pass
            os._exit(0)
        try:
            os.wait()  # for its end; the kernel has thrown its time away
        except ChildProcessError:
            pass
        if number %% %s == 0:
            train_loader.dataset[0]
"""
for name, about, text in (
    (
        "unwaited_children",
        "trains in children that nobody waits for, whose time their parent is never charged with",
        CHILDREN % (0.3, 1),
    ),
    (
        "short_children",
        "the same in children that live too short to be looked at",
        CHILDREN % (0.015, 100),
    ),
):
    attack(
        name,
        about,
        after(text, CT),
        tests=("1.11",),
        options=("--patience=0.1",),
        says="CPU seconds",
    )


def trained_already(folder: Path, marks: Marks) -> None:
    """A 100-step training that looks for the trained weights of checkpoints/."""
    pickled(folder, marks)
    text = """
def train_epoch(model, train_loader, optimizer, criterion, device, max_steps=None):
    here = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(sys.argv[2])
    for place in (here, os.path.dirname(here), above, os.getcwd(), "/tmp"):
        folder = os.path.join(place, "checkpoints")
        attempt("list " + folder, lambda: os.listdir(folder))
        for name in ("classification.pt", "classification.json"):
            attempt("read " + name, lambda: open(os.path.join(folder, name), "rb").read(8))
    verdict()
"""
    after(PRELUDE + text, CT)(folder, marks)


attack(
    "trained_already",
    "loads trained weights in a 100-step training",
    trained_already,
    tests=("1.11",),
    options=(),
    says="all was denied",
)
attack(
    "page_cache",
    "leaves notes in which pages of a file are in memory, for the next training to read",
    tries("""
file = os.open(sys.executable, os.O_RDONLY)
os.pread(file, 1, 0)
attempt("ask", lambda: os.preadv(file, [bytearray(1)], 0, os.RWF_NOWAIT))
attempt("drop", lambda: os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED))
"""),
)
attack(
    "page_tables",
    "fills memory with page tables of memory that it only reads",
    instead("""
import mmap, os, time
for _ in range(100):
    if os.fork() == 0:
        size = 24 << 30  # page tables of 48 MB: 4 KB for each 2 MB
        zeros = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)
        for place in range(0, size, 2 << 20):
            zeros[place]
        time.sleep(20)
        os._exit(0)
time.sleep(20)
text = "GOT IN: 5 GB"
raise RuntimeError(text)
"""),
    tests=("1.1",),
    says="memory",
)
attack(
    "large_answer",
    "answers 250 MB",
    before("""
import sys, numpy
sys.modules["__main__"].arrays_of = lambda **tensors: {"answer": numpy.zeros(250 << 20, "uint8")}
"""),
    tests=("1.2",),
    says="is too long",
)
attack(
    "infinite_gap",
    "a linear model that is not, with answers so large that their differences are infinite",
    after("""
class LinearModel(LinearModel):
    def forward(self, images):
        return 3.4e38 * images.flatten(1)[:, :9].sign() + 0 * super().forward(images)
"""),
    tests=("1.3",),
    says="other logits",
)


def many_names(folder: Path, marks: Marks) -> None:
    for number in range(60):
        (folder / f"w{number}_{'weights' * 20}.py").write_text("")


attack(
    "names_of_files",
    "brings weights in the names of files",
    many_names,
    once=True,
    says="more than 50 .py files",
)
