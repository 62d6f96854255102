"""No hostile submission gets a point, data or a right that is not its own, or outlives its grading.

Each is graded by a real process, as an instructor would do it: pytest grader --submission PATH.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import REPO, hear_ctrl_c
from grading import INSIDE, MODULES, Isolation, command, graded_tests, skip_without
from hostile import ATTACKS, Attack, Marks
from hostile.attack import CM, SNIPPETS, Text

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
KINDS = [kind for kind in Isolation if kind is not Isolation.NONE]
SECRET = "hunter-" + uuid.uuid4().hex
PROCESS_SECONDS = 240  # for one grading; all limits inside are far below


class Scene:
    """What lies around a grading: files outside, listeners, and a mark for its processes."""

    def __init__(self):
        self.token = "hostile-" + uuid.uuid4().hex[:12]
        self.root = Path(os.path.realpath(tempfile.mkdtemp(prefix=self.token)))
        self.root.chmod(0o755)  # unlike tmp_path, other users can come here
        for name in ("work", "canary", "results", "submission", "grading-decoy/submission"):
            (self.root / name).mkdir(parents=True)
            (self.root / name).chmod(0o777)
        self.submission = self.root / "submission"
        self.results = self.root / "results" / "results.json"
        self.outside = [self.root / "canary/canary.txt"]
        self.outside += [self.root / "grading-decoy/submission/classification_models.py"]
        for path in self.outside:
            path.write_text(SECRET)
            path.chmod(0o666)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(type=socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix, self.abstract = (socket.socket(socket.AF_UNIX) for _ in range(2))
        self.unix.bind(str(self.root / "socket"))
        (self.root / "socket").chmod(0o777)
        self.abstract.bind("\0" + self.token)
        self.sockets = [self.tcp, self.udp, self.unix, self.abstract]
        for one in self.sockets:
            if one is not self.udp:
                one.listen()
            one.setblocking(False)
        self.marks = Marks(
            token=self.token,
            canary=str(self.root / "canary"),
            decoy=str(self.root / "grading-decoy"),
            results=str(self.results),
            repo=str(REPO),
            tcp=str(self.tcp.getsockname()[1]),
            udp=str(self.udp.getsockname()[1]),
            unix=str(self.root / "socket"),
        )
        for name in MODULES:
            shutil.copyfile(REPO / name, self.submission / name)

    def start(self, path: Path, numbers: Sequence[str], *options: str) -> subprocess.Popen:
        """A grading of some tests."""
        environment = {**os.environ, "TMPDIR": str(self.root / "work"), "HOSTILE_SECRET": SECRET}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with open(self.root / "output.txt", "wb") as output:
            return subprocess.Popen(
                command(path, self.results, numbers, *options),
                cwd=REPO,
                env=environment,
                stdout=output,
                stderr=output,
                preexec_fn=hear_ctrl_c,
            )

    def output(self) -> str:
        return (self.root / "output.txt").read_text(errors="replace")

    def processes(self) -> list[str]:
        """What still runs with the mark or the workspace in its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] if line else "Z"
            except OSError:
                continue
            if self.token.encode() in line and state != "Z":
                found.append(f"{entry.name} {line!r}")
        return found

    def harm(self) -> list[str]:
        """What the grading left or changed."""
        found = [f"process {line}" for line in self.processes()]
        found += [f"left {path}" for path in (self.root / "work").iterdir()]
        expected = {"canary.txt"}
        found += [f"new {p}" for p in (self.root / "canary").iterdir() if p.name not in expected]
        found += [f"changed {path}" for path in self.outside if path.read_text() != SECRET]
        trusted = [REPO / name for name in INSIDE["TRUSTED_FOLDERS"].split()]
        for folder in (Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"), *trusted):
            found += [f"left {p}" for p in folder.glob(f"*{self.token}*") if p != self.root]
        for one in self.sockets:
            try:
                if one is self.udp:
                    found.append(f"datagram {one.recv(100)!r}")
                else:
                    found.append(f"connection {one.accept()}")
            except BlockingIOError:
                pass
        return found

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        for path in (self.root / "submission", self.root):
            shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def scene():
    scene = Scene()
    yield scene
    scene.close()


def snapshot(path: Path) -> str:
    """A digest of a folder or file: names, kinds, contents."""
    digest = hashlib.sha256()
    for entry in sorted([path, *path.rglob("*")], key=os.fsencode):
        digest.update(f"{os.fsencode(entry)} {entry.lstat().st_mode}".encode())
        if entry.is_symlink():
            digest.update(os.fsencode(os.readlink(entry)))
        elif entry.is_file():
            digest.update(entry.read_bytes())
    return digest.hexdigest()


def verdicts(scene: Scene, numbers) -> dict[str, dict]:
    """Of results.json, after checks of its form: one verdict for each of these tests."""
    results = json.loads(scene.results.read_text())
    tests = {test["number"]: test for test in results["tests"]}
    assert sorted(test["number"] for test in results["tests"]) == sorted(numbers)
    assert results["score"] == round(sum(test["score"] for test in tests.values()), 2)
    for number, test in tests.items():
        assert 0 <= test["score"] <= test["max_score"] == graded_tests()[number].points
        assert test["status"] in ("passed", "failed")
        assert test["output"]
        assert len(test["output"]) < 5000
        assert all(c == "\n" or c.isprintable() for c in test["output"])
    return tests


# The others take long together: `make slow`.
ALWAYS = ("os_exit", "patch_numpy", "own_answers", "read_environment", "shadow_modules", "pickle")


def cases():
    for name, attack in ATTACKS.items():
        for kind in KINDS[:1] if attack.once else KINDS:
            marks = [] if name in ALWAYS else [pytest.mark.slow]
            marks += [pytest.mark.alone] if attack.alone else []
            yield pytest.param(kind, attack, id=f"{name}-{kind.value}", marks=marks)


@pytest.mark.parametrize(("kind", "attack"), list(cases()))
def test_attack(kind: Isolation, attack: Attack, scene: Scene):
    skip_without(kind)
    path = attack.make(scene.submission, scene.marks) or scene.submission
    before = snapshot(path)
    free = shutil.disk_usage(scene.root).free
    process = scene.start(path, attack.tests, f"--isolation={kind.value}", *attack.options)
    try:
        code = process.wait(PROCESS_SECONDS)
    finally:
        process.kill()
        process.wait()
    output = scene.output()
    tests = verdicts(scene, attack.tests)
    said = "\n".join(test["output"] for test in tests.values())
    assert code in (0, 1), output
    assert f"{sum(t['score'] for t in tests.values()):g} of " in output
    assert sum(test["score"] for test in tests.values()) <= attack.points, said
    assert re.search(attack.says, said), said
    assert "GOT IN" not in output + said
    assert SECRET not in output + scene.results.read_text()
    assert scene.harm() == []
    assert snapshot(path) == before
    if attack.alone:  # or else other tests may write meanwhile
        assert shutil.disk_usage(scene.root).free > free - (200 << 20)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_what_the_attacks_aim_at_is_there(kind: Isolation, scene: Scene):
    """Or else those that look for it would be harmless by mistake."""
    skip_without(kind)
    assert (REPO / INSIDE["TRUSTED_SOURCE"]).is_file() and (REPO / INSIDE["DATA_SOURCE"]).is_file()
    aim = Text("instead", (CM,), [SNIPPETS["messages"], AIMS])
    aim.write(scene.submission, scene.marks)
    process = scene.start(scene.submission, ["1.1"], "--fast", f"--isolation={kind.value}")
    assert process.wait(PROCESS_SECONDS) == 1
    assert "missing: []" in verdicts(scene, ["1.1"])["1.1"]["output"]


AIMS = """
above = os.path.dirname(sys.argv[2])
found = {
    "operations": isinstance(@OPERATIONS@, dict),
    "to arrays": callable(@TO_ARRAYS@),
    "replies": REPLIES > 2 and os.fstat(REPLIES),
    "request": "id" in request_of(sys._getframe())[0],
    "protocol": callable(@PROTOCOL@.encode),
}
for name in "@WORKER_FILES@".split():
    found[name] = os.path.isfile(f"{above}/@TOOLS@/{name}")
text = f"missing: {[name for name in found if not found[name]]}"
raise RuntimeError(text)
"""


def not_reached(tests: dict[str, dict]) -> list[str]:
    return [number for number, test in tests.items() if "not reached" in test["output"]]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_results_when_the_grader_is_stopped(kind: Isolation, ending: int, scene: Scene):
    """results.json is complete all the time: what was not reached has zero points."""
    skip_without(kind)
    numbers = ["1.1", "1.2", "1.3", "1.12"]  # the last takes long
    process = scene.start(scene.submission, numbers, f"--isolation={kind.value}")
    deadline = time.monotonic() + PROCESS_SECONDS
    seen = set()
    while time.monotonic() < deadline:
        # Before pytest has collected the tests, the file has none.
        if scene.results.exists() and json.loads(scene.results.read_text())["tests"]:
            tests = verdicts(scene, numbers)
            seen.add(len(not_reached(tests)))
            if not_reached(tests) == ["1.12"]:
                break
        assert process.poll() is None, scene.output()
        time.sleep(0.02)
    time.sleep(1.0)
    process.send_signal(ending)
    process.wait(30)
    tests = verdicts(scene, numbers)
    assert not_reached(tests) == ["1.12"]
    points = [graded_tests()[number].points for number in numbers[:3]]
    assert sum(test["score"] for test in tests.values()) == sum(points)
    assert max(seen) == 4, "the file was there before the first test had ended"
    deadline = time.monotonic() + 10
    while scene.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert scene.processes() == []
    if ending == signal.SIGINT:
        assert process.returncode == 2
        assert scene.harm() == []


def test_nothing_to_grade(scene: Scene):
    for name in MODULES:
        (scene.submission / name).unlink()
    numbers = list(graded_tests())
    process = scene.start(scene.submission, numbers, "--fast", "--isolation=bubblewrap")
    assert process.wait(PROCESS_SECONDS) == 1
    tests = verdicts(scene, numbers)
    assert sum(test["score"] for test in tests.values()) == 0
    assert all(
        "cannot be graded" in test["output"] or "left out" in test["output"]
        for test in tests.values()
    )


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.stdout = 0; os.kill(os.getpid(), 11)"])
def test_a_crash_costs_one_test_alone(ending: str, scene: Scene):
    path = scene.submission / "classification_train.py"
    source = path.read_text()
    text = f"def validate_epoch(*arguments, **options):\n    import os, sys\n    {ending}\n"
    path.write_text(source + "\n" + text.replace("; ", "\n    "))
    numbers = ["1.7", "1.9", "2.1", "1.6", "1.8"]
    process = scene.start(scene.submission, numbers, "--fast")
    process.wait(PROCESS_SECONDS)
    tests = verdicts(scene, numbers)
    lost = [number for number, test in tests.items() if test["score"] < test["max_score"]]
    assert lost == ["1.9"]
    assert scene.harm() == []


@pytest.mark.parametrize("spelling", ["--submission={}", "--submission {}"])
def test_the_order_in_which_pytest_reads_foreign_settings_is_refused(spelling, scene: Scene):
    arguments = spelling.format(scene.submission).split()
    call = [sys.executable, "-m", "pytest", *arguments, "grader", "--co", "-q"]
    done = subprocess.run(call, cwd=REPO, capture_output=True, text=True)
    assert (done.returncode == 4) == (len(arguments) == 2), done.stdout + done.stderr
    assert ("`grader` before --submission" in done.stderr) == (len(arguments) == 2)
