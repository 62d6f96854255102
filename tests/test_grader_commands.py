"""Handout, a whole class, Gradescope's zip, and the HTML pages: the real commands, as processes."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import REPO, assert_user_error, environment, hear_ctrl_c

from autograde.course.gradebook import GRADED, Row, gradebook, histogram, overview
from autograde.course.handout import without_solutions
from autograde.course.roster import find_students
from autograde.report import page
from autograde.results import Results, Verdict
from pathlab.errors import UserError

HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
MODULES = ("classification_models", "classification_train")
MODULES += ("segmentation_models", "segmentation_train")
WAIT = 120  # seconds until a test gives up on a process
ALLOWED = "html head meta title style body h1 h2 h3 p small div span section b table tr th td a ul"
ALLOWED += " li svg line rect text"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "grader", *map(str, arguments)]


def run(*arguments: str | Path, cwd: Path = REPO) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def raising(folder: Path, message: str) -> Path:
    """A submission whose every module raises this."""
    folder.mkdir(parents=True)
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"raise ValueError({message!r})\n")
    return folder


def zipped(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))


def table(out: Path) -> dict[str, dict[str, str]]:
    """gradebook.csv by id."""
    rows = csv.DictReader(io.StringIO((out / "gradebook.csv").read_text()))
    return {row["id"]: row for row in rows}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [v for name, v in attributes if name in ("href", "src")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def read_page(text: str) -> Page:
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
    found = Page(text)
    assert found.tags <= set(ALLOWED.split())
    return found


# ---- one grading's page


def test_a_page_says_everything_and_runs_nothing_of_a_submission():
    results = Results(None, None, f"{HOSTILE}.zip")
    outputs = [
        (2, "Passed."),
        (0.5, f"Expected: {HOSTILE}\nGot: a\nb\nLikely cause: c"),
        (0, f"Your code raised {HOSTILE}"),
        (0, "This test was not reached."),
    ]
    for index, (score, output) in enumerate(outputs, 1):
        verdict = Verdict(f"1.{index}", f"T{index} {HOSTILE}", 2, "visible", score, output)
        results.verdicts[str(index)] = verdict
    results.notes.append(HOSTILE)
    found = read_page(page(results))
    assert found.links == []
    assert found.text.count(HOSTILE) == 9  # title, heading, four tests, twice said, note
    for words in ("2.5", "of 8 points", "1 passed", "1 partly", "1 lost", "1 not graded"):
        assert words in found.text
    assert "Got: a\nb\nLikely cause: c" in found.text


def test_pytest_writes_the_page(tmp_path):
    source, report = raising(tmp_path / "one", HOSTILE), tmp_path / "page.html"
    grader = [sys.executable, "-m", "pytest", "grader", "--fast", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*grader, f"--submission={source}", f"--report={report}"], cwd=REPO, capture_output=True
    )
    assert done.returncode == 1
    found = read_page(report.read_text())
    assert HOSTILE in found.text and "Grading of one" in found.text and "of 60 points" in found.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "page.html"]


# ---- handout


def test_only_what_stands_between_the_marks_is_taken_out():
    source = "def f():\n    ### BEGIN SOLUTION\n    x = 1\n\n    ### END SOLUTION\n    return 2\n"
    stripped, count = without_solutions(source * 2)
    assert count == 2 and "x = 1" not in stripped and stripped.count("return 2") == 2
    assert stripped.count("    raise NotImplementedError(") == 2
    for broken in (
        source.replace("    ### END SOLUTION\n", ""),
        source.replace("    ### BEGIN SOLUTION\n", ""),
        source.replace("x = 1", "### BEGIN SOLUTION"),
        source.replace("    ### END", "  ### END"),
    ):
        with pytest.raises(ValueError, match="stands alone"):
            without_solutions(broken + source)


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("handout") / "new" / "pathlab-assignment"
    done = run("handout", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_handout_has_what_students_need_and_nothing_else(handout):
    for name in (
        "pathlab/data/sets.py",
        "grader/operations.py",
        "docs/grader.md",
        "requirements.txt",
    ):
        assert (handout / name).read_bytes() == (REPO / name).read_bytes()
    names = {path.name for path in handout.rglob("*")}
    unwanted = ("tests", "benchmarks", "capstones", ".git", "data", "runs", "__pycache__")
    assert names.isdisjoint(unwanted)
    assert (handout / "README.md").read_text().startswith("# PathLab\n\n> **This folder")
    readme = (handout / "README.md").read_text()
    assert "the blanks are filled in" not in readme
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert links and [link for link in links if not (handout / link).exists()] == []


def test_the_handout_is_graded_with_zero_points_and_says_not_written_yet(handout):
    results = handout.parent / "results.json"
    grading = [sys.executable, "-m", "pytest", "grader", "--fast", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*grading, f"--results={results}"], cwd=handout, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    value = json.loads(results.read_text())
    assert value["score"] == 0
    for test in value["tests"]:
        output = test["output"]
        alone = output.startswith("Not graded: trainings") or "checkpoints/" in output
        assert alone or "not written yet" in output, test
    assert sum("not written yet" in test["output"] for test in value["tests"]) > 20


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    assert_user_error(run("handout", tmp_path), "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert_user_error(run("handout", tmp_path / "mine.txt"), "not empty")


# ---- a class


@pytest.fixture(scope="module")
def graded(tmp_path_factory, handout) -> tuple[Path, Path, subprocess.CompletedProcess]:
    """(submissions, out, the process): five students and what lies around in an export."""
    folder = tmp_path_factory.mktemp("class")
    source, out = folder / "submissions", folder / "out"
    source.mkdir()
    (source / "empty").mkdir()
    for name in MODULES:
        shutil.copy(handout / f"{name}.py", source / "empty")
    raising(source / "<b>hostile", HOSTILE)
    zipped(source / "empty", source / "lovelace_12345_assignment.zip")
    (source / "=HYPERLINK('x').zip").write_bytes(b"PK\3\4 broken")
    (source / "; touch x\n.zip").write_bytes(b"")
    (source / "submission_metadata.yml").write_text("x")
    (source / "__MACOSX").mkdir()
    return source, out, run("class", source, "--out", out, "--fast", "--jobs", "2")


def test_every_student_gets_a_row_a_page_and_a_log(graded):
    source, out, done = graded
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: submission_metadata.yml" in done.stderr
    rows = table(out)
    damaged = ["; touch x\ufffd", "'=HYPERLINK('x')"]
    assert set(rows) == {*damaged, "<b>hostile", "empty", "lovelace_12345_assignment"}
    for name, row in rows.items():
        broken = name in damaged
        assert row["status"] == ("unreadable" if broken else "graded")
        assert ("not a zip file that can be read" in row["note"]) == broken
        for column in ("score", "part 1", "part 2", "extra", "test 1.10", "test 3.1"):
            assert row[column] == "0"
    for student in find_students(source)[0]:
        assert set(student.stem) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
        )
        results = json.loads((out / "results" / f"{student.stem}.json").read_text())
        assert len(results["tests"]) == 30
        found = read_page((out / "results" / f"{student.stem}.html").read_text())
        assert f"Grading of {student.id}" in found.text and found.links == []
        assert "short test summary" in (out / "logs" / f"{student.stem}.txt").read_text()
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "results",
        "records",
        "logs",
        "gradebook.csv",
        "report.html",
    }


def test_the_overview_links_every_student_and_names_what_went_wrong(graded):
    source, out, _ = graded
    found = read_page((out / "report.html").read_text())
    links = [f"results/{student.stem}.html" for student in find_students(source)[0]]
    assert found.links == links
    assert all((out / link).is_file() for link in links)
    assert "<b>hostile" in found.text and "5 submissions" in found.text
    assert "2 \u00d7 this blank is not filled in yet" in found.text


def test_only_what_changed_or_was_damaged_is_graded_again(graded, tmp_path):
    source, out = tmp_path / "submissions", tmp_path / "out"
    shutil.copytree(graded[0], source)  # a later modification time alone is no change
    shutil.copytree(graded[1], out)
    stems = {student.id: student.stem for student in find_students(source)[0]}

    def times() -> dict[str, int]:
        records = {name: out / "records" / f"{stem}.json" for name, stem in stems.items()}
        return {name: path.stat().st_mtime_ns for name, path in records.items()}

    before = times()
    done = run("class", source, "--out", out, "--fast")
    assert done.returncode == 0 and "5 of them graded before" in done.stdout
    assert times() == before
    (source / "empty" / "helper.py").write_text("x = 1\n")
    (out / "results" / f"{stems['<b>hostile']}.json").write_text('{"score": 60, "tests": []}')
    (out / "records" / f"{stems['lovelace_12345_assignment']}.json").write_text('["\0')
    done = run("class", source, "--out", out, "--fast")
    assert done.returncode == 0 and "2 of them graded before" in done.stdout
    again = {name for name, when in times().items() if when != before[name]}
    assert again == {"empty", "<b>hostile", "lovelace_12345_assignment"}
    assert {row["score"] for row in table(out).values()} == {"0"}


def processes(word: str) -> list[str]:
    """Command lines of running processes that have the word in them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found += [line] if word in line else []
    return found


def eventually(condition) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_class_that_is_stopped_ends_its_gradings_and_goes_on(ending, tmp_path):
    source, out = tmp_path / "submissions", tmp_path / "out"
    for name in ("a", "b", "c"):
        raising(source / name, name)
    arguments = command("class", source, "--out", out, "--fast", "--jobs", "1")
    with open(tmp_path / "log.txt", "wb") as log:
        process = subprocess.Popen(
            arguments,
            cwd=REPO,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        )
    try:
        first = out / "records" / "a.json"
        eventually(lambda: first.exists() or process.poll() is not None)
        eventually(lambda: processes(f"--submission={source / 'b'}"))
        process.send_signal(ending)
        code = process.wait(WAIT)
    finally:
        process.kill()
        process.wait()
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log
    if ending == signal.SIGINT:
        assert code == 130 and "The same command again goes on from here." in log
        assert processes(str(source)) == []
    eventually(lambda: not processes(str(source)))
    assert not (out / "records" / "c.json").exists()
    graded = first.stat().st_mtime_ns
    assert (table(out)["a"]["status"], table(out)["c"]["status"]) == ("graded", "waiting")
    done = run("class", source, "--out", out, "--fast", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == graded
    assert {row["status"] for row in table(out).values()} == {"graded"}
    assert not (out / "work").exists()


def test_a_grading_that_takes_too_long_is_stopped_and_tried_again(tmp_path):
    source, out = tmp_path / "submissions", tmp_path / "out"
    raising(source / "slow", "x")
    for name in MODULES:
        (source / "slow" / f"{name}.py").write_text("import time\ntime.sleep(600)\n")
    done = run("class", source, "--out", out, "--fast", "--limit", "4")
    assert done.returncode == 1 and "slow could not be graded" in done.stderr
    row = table(out)["slow"]
    assert row["status"] == "failed to grade" and "longer than 4 seconds" in row["note"]
    assert "longer than 4 seconds" in (out / "results" / "slow.html").read_text()
    assert "longer than 4 seconds" in json.loads((out / "results/slow.json").read_text())["output"]
    raise_instead = "raise ValueError\n"
    for name in MODULES:
        (source / "slow" / f"{name}.py").write_text(raise_instead)
    assert run("class", source, "--out", out, "--fast").returncode == 0
    assert table(out)["slow"]["status"] == "graded"


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["ray"], ["slurm", "--slurm", "cluster=local"]])
def test_a_class_on_a_cluster(engine, tmp_path):
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine[0]])
    source, out = tmp_path / "submissions", tmp_path / "out"
    raising(source / "a", "x")
    raising(source / "b", "x")
    done = run("class", source, "--out", out, "--fast", "--jobs", "1", "--engine", *engine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in table(out).values()} == {"graded"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.zip", "a/"], "give the same id"),
        (["Ada.zip", "ada.zip"], "give the same id"),
        (["notes.txt"], "has no submissions"),
        ([], "has no submissions"),
    ],
)
def test_folders_that_are_no_class(names, words, tmp_path):
    for name in names:
        path = tmp_path / "submissions" / name
        path.mkdir(parents=True) if name.endswith("/") else (
            path.parent.mkdir(exist_ok=True),
            path.touch(),
        )
    (tmp_path / "submissions").mkdir(exist_ok=True)
    done = run("class", tmp_path / "submissions", "--out", tmp_path / "out", "--fast")
    assert_user_error(done, words)


def test_arguments_that_cannot_be_meant(tmp_path):
    source = raising(tmp_path / "submissions" / "a", "x").parent
    assert_user_error(run("class", tmp_path / "no", "--out", tmp_path / "out"), "No such file")
    assert_user_error(run("class", source, "--out", source / "out"), "of their own")
    assert_user_error(run("class", source, "--out", tmp_path), "of their own")
    assert_user_error(run("class", source, "--out", tmp_path / "out", "--jobs", "0"), "--jobs")
    bad = run("class", source, "--out", tmp_path / "out", "--dataset", tmp_path / "no.npz")
    assert_user_error(bad, "no.npz")
    assert not (tmp_path / "out").exists()


def test_ids_become_harmless_and_different_file_names(tmp_path):
    names = [b"a b", b"a_b", b"a\nb", b"-rf", b"\xff\xfe", "\u202e<x>".encode(), b"x" * 200, b"~"]
    for name in names:
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    students, _ = find_students(tmp_path)
    stems = {student.stem for student in students}
    assert len(stems) == len(names) and all(stem.isascii() and len(stem) < 100 for stem in stems)
    assert not any(set(stem) & set(" \n<>~/") or stem[0] in ".-" for stem in stems)
    assert all(student.id.isprintable() for student in students)
    assert "a_b" in stems


def test_no_cell_of_the_gradebook_is_a_formula():
    ids = ["=1+1", "+1", "-1", "@x", "\t=1", "ok", "a,b", '"', "'"]
    rows = [Row(name, "s", GRADED, 1.0, "=note", None) for name in ids]
    cells = [cell for row in csv.reader(io.StringIO(gradebook(rows))) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert {"ok", "a,b", '"', "'=1+1"} <= set(cells)


def test_the_overview_escapes_what_comes_from_students_and_gradings():
    verdict = Verdict("1.1", HOSTILE, 2, "visible", 0, f"Likely cause: {HOSTILE}")
    results = Results(None, verdicts={"1.1": verdict})
    found = read_page(overview([Row(HOSTILE, "harmless", GRADED, 1.0, HOSTILE, results)]))
    assert found.text.count(HOSTILE) == 4 and found.links == ["results/harmless.html"]


def test_every_score_is_in_the_histogram():
    scores = [0, 0, 4.99, 5, 59.99, 60]
    drawn = Page(histogram(scores, 60))
    counts = histogram(scores, 60).split('text-anchor="middle">')[1:]
    assert "rect" in drawn.tags
    assert [int(part.split("<")[0]) for part in counts] == [3, 1, 2]


# ---- Gradescope


def unpacked(file: Path, root: Path) -> Path:
    """The root of an autograder as Gradescope lays it out, without a submission."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, root / "source"))
            path.chmod(entry.external_attr >> 16 & 0o777)
    return root


@pytest.fixture(scope="module")
def autograder(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("gradescope") / "autograder.zip"
    done = run("gradescope", file)
    assert done.returncode == 0, done.stderr
    return file


def test_the_zip_is_the_same_every_time_and_holds_no_solutions(autograder):
    before = autograder.read_bytes()
    assert run("gradescope", autograder).returncode == 0
    assert autograder.read_bytes() == before
    with zipfile.ZipFile(autograder) as archive:
        names = archive.namelist()
        texts = [archive.read(name) for name in names if name.endswith(".py")]
        setup, start = archive.read("setup.sh"), archive.read("run_autograder")
    assert names == sorted(names)
    assert {"grader/conftest.py", "pathlab/files.py", "requirements.txt"} <= set(names)
    assert not [n for n in names if Path(n).stem in MODULES or n.startswith("tests/")]
    assert not [text for text in texts if b"    ### BEGIN SOLUTION\n" in text]
    assert b"SECONDS" not in start
    for script in (setup, start):
        assert subprocess.run(["bash", "-n"], input=script).returncode == 0


def test_run_autograder_grades_and_leaves_a_result_whatever_happens(autograder, handout, tmp_path):
    root = unpacked(autograder, tmp_path / "autograder")
    (root / "submission").mkdir()
    for name in MODULES:
        shutil.copy(handout / f"{name}.py", root / "submission")
    results = root / "results" / "results.json"

    def start(python: str) -> dict:
        program = root / "source" / "run_autograder"
        paths = {"AUTOGRADER_ROOT": str(root), "AUTOGRADER_PYTHON": python}
        assert subprocess.run([program], env=environment(**paths), timeout=WAIT).returncode == 0
        return json.loads(results.read_text())

    value = start(sys.executable)
    assert value["score"] == 0 and len(value["tests"]) == 30
    assert any("not written yet" in test["output"] for test in value["tests"])
    results.write_text('{"score": 60, "tests": []}')  # of another submission
    value = start("/nowhere/python")
    assert value["score"] == 0 and "exit code 127" in value["output"]
    (root / "source" / "grader" / "conftest.py").write_text("raise RuntimeError\n")
    value = start(sys.executable)
    assert value["score"] == 0 and "The grading itself failed" in value["output"]


def test_results_are_read_as_they_were_written(tmp_path):
    results = Results(tmp_path / "results.json", notes=["one", "two"])
    results.verdicts["a"] = Verdict("1.1", "t", 2, "visible", 0.5, "x\ny")
    results.write()
    again = Results.read(tmp_path / "results.json")
    assert (again.score, again.notes, again.parts) == (0.5, ["one", "two"], results.parts)
    assert list(again.verdicts.values()) == list(results.verdicts.values())


def test_find_students_needs_a_folder(tmp_path):
    (tmp_path / "export.zip").touch()
    with pytest.raises(UserError, match="Not a directory"):
        find_students(tmp_path / "export.zip")
