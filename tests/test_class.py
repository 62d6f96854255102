"""python -m grader class: a whole class, as a process."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPO, assert_user_error, environment, hear_ctrl_c
from course import ASSIGNMENT, HOSTILE, WAIT, command, raising, read_page, run, table, zipped

from autograde.course.command import main
from autograde.course.roster import find_students
from autograde.sandbox.start import Isolation
from pathlab.errors import UserError


@pytest.fixture(scope="module")
def graded(tmp_path_factory, handout) -> tuple[Path, Path, subprocess.CompletedProcess]:
    """(submissions, out, the process): five students and what lies around in an export."""
    folder = tmp_path_factory.mktemp("class")
    source, out = folder / "submissions", folder / "out"
    source.mkdir()
    (source / "empty").mkdir()
    for name in ASSIGNMENT.modules:
        shutil.copy(handout / name, source / "empty")
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
        assert len(results["tests"]) == len(ASSIGNMENT.tests)
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


def test_other_options_are_refused(graded, tmp_path):
    source, out = graded[0], tmp_path / "out"
    shutil.copytree(graded[1], out)
    before = (out / "gradebook.csv").read_bytes()
    assert_user_error(
        run("class", source, "--out", out), "fast was True, is False", "another --out"
    )
    assert (out / "gradebook.csv").read_bytes() == before


def test_a_class_is_not_graded_where_no_isolation_works(monkeypatch, tmp_path):
    source = raising(tmp_path / "submissions" / "a", "x").parent
    monkeypatch.setattr("autograde.course.command.best_isolation", lambda: Isolation.NONE)
    with pytest.raises(UserError, match="add --isolation none"):
        main(ASSIGNMENT, ["class", str(source), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


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
@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
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
    for name in ASSIGNMENT.modules:
        (source / "slow" / name).write_text("import time\ntime.sleep(600)\n")
    done = run("class", source, "--out", out, "--fast", "--limit", "4")
    assert done.returncode == 1 and "slow could not be graded" in done.stderr
    row = table(out)["slow"]
    assert row["status"] == "failed to grade" and "longer than 4 seconds" in row["note"]
    assert "longer than 4 seconds" in (out / "results" / "slow.html").read_text()
    assert "longer than 4 seconds" in json.loads((out / "results/slow.json").read_text())["output"]
    raise_instead = "raise ValueError\n"
    for name in ASSIGNMENT.modules:
        (source / "slow" / name).write_text(raise_instead)
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


def test_arguments_that_cannot_be_meant(tmp_path):
    source = raising(tmp_path / "submissions" / "a", "x").parent
    assert_user_error(run("class", tmp_path / "no", "--out", tmp_path / "out"), "No such file")
    assert_user_error(run("class", source, "--out", source / "out"), "of their own")
    assert_user_error(run("class", source, "--out", tmp_path), "of their own")
    assert_user_error(run("class", source, "--out", tmp_path / "out", "--jobs", "0"), "--jobs")
    bad = run("class", source, "--out", tmp_path / "out", "--dataset", tmp_path / "no.npz")
    assert_user_error(bad, "no.npz")
    assert not (tmp_path / "out").exists()
