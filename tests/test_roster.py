"""Who has handed in what, and the gradebook."""

import os

import pytest
from conftest import assert_user_error
from course import run

from autograde.course.roster import find_students
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
