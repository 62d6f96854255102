"""Who has handed in what, and the gradebook."""

import os

import pytest
from conftest import assert_user_error
from course import ASSIGNMENT, raising, run

from autograde.course.roster import find_students, submission_digest
from pathlab.errors import UserError


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


def test_find_students_needs_a_folder(tmp_path):
    (tmp_path / "export.zip").touch()
    with pytest.raises(UserError, match="Not a directory"):
        find_students(tmp_path / "export.zip")


def test_a_new_checkpoint_is_a_new_submission(tmp_path):
    source = raising(tmp_path / "a", "x")
    (source / "checkpoints").mkdir()
    (source / "checkpoints/classification.safetensors").write_bytes(b"old")
    before = submission_digest(source, ASSIGNMENT)
    assert submission_digest(source, ASSIGNMENT) == before
    (source / "checkpoints/classification.safetensors").write_bytes(b"new")
    after = submission_digest(source, ASSIGNMENT)
    (source / "checkpoints/classification.safetensors").rename(source / "checkpoints/x.json")
    assert len({before, after, submission_digest(source, ASSIGNMENT)}) == 3
