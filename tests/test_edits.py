"""The corpora's edits find code whatever its layout, and say so when they no longer fit."""

import ast

import pytest
from edits import Case, Edit, EditError, apply_edits, read_corpus, write_submission

pytestmark = pytest.mark.quick

MODULE = '''
"""A module."""

class Model:
    def forward(self, x):  # a comment
        """Its docstring."""
        y = self.layer(
            x,
        )
        return y.relu()

@cached
def loss(a, b):
    for x in a:
        b += x
    return b
'''


def edited(*edits: Edit) -> str:
    return apply_edits(MODULE, list(edits))


@pytest.mark.parametrize(
    ("edit", "new"),
    [
        (Edit("m.Model.forward", "self.layer(x)", "self.layer(2 * x)"), "y = self.layer(2 * x)"),
        (Edit("m.Model.forward", "self.layer(X)", "X"), "y = x"),
        (Edit("m.Model.forward", "return X", "print(X)\nreturn X"), "print(y.relu())"),
        (Edit("m.loss", "b += x", ""), "pass"),
        (Edit("m.loss", "for x in a:\n    ...", "if a:\n    ..."), "if a:\n        b += x"),
        (Edit("m.loss", "", "def loss():\n    return 1"), "def loss():\n    return 1"),
        (
            Edit("m", "class Model:\n    ...", "class Other:\n    ..."),
            "class Other:\n\n    def forw",
        ),
        (Edit("m.loss", "cached", ""), "\n\ndef loss(a, b):"),
    ],
)
def test_code_is_found_whatever_its_layout(edit: Edit, new: str):
    text = edited(edit)
    assert new in text and new not in ast.unparse(ast.parse(MODULE))
    ast.parse(text)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit("m.gone", "b", "c"), "there is not one, but 0 of: m.gone"),
        (Edit("m.loss", "c += x", "b"), "in m.loss there is not one, but 0 of: c += x"),
        (Edit("m", "x", "y"), "in m there is not one, but 3 of: x"),
        (Edit("m.loss", "a = b\nb = X", ""), "in m.loss there is not one, but 0 of: a = b / b = X"),
    ],
)
def test_an_edit_that_does_not_fit_says_so_in_one_line(edit: Edit, message: str):
    with pytest.raises(EditError) as error:
        edited(edit)
    assert str(error.value) == message


def test_a_corpus_file(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/b.py").write_text("whole")
    (tmp_path / "reference").mkdir()
    for name in "abc":
        (tmp_path / f"reference/{name}.py").write_text("x = 1\ny = 2\n")
    corpus = tmp_path / "some.edits"
    corpus.write_text(
        "# a remark\n## one | 1 2 | word | a|b\nuse whole\n@ a\n- x = 1\n  y = 2\n+ z = 3\n\n"
        "@ c\n## two\n"
    )
    one, two = read_corpus(corpus)
    assert (one.name, one.fields) == ("one", ["1 2", "word", "a|b"])
    assert two == Case("two", [], None, [])
    made = write_submission(
        one, tmp_path / "reference", ("a.py", "b.py", "c.py"), tmp_path / "made"
    )
    assert {path.name: path.read_text() for path in made.iterdir()} == {
        "a.py": "y = 2\nz = 3\n",
        "b.py": "whole",
    }
    with pytest.raises(EditError, match="there is no module for c"):
        write_submission(one, tmp_path / "reference", ("a.py", "b.py"), tmp_path / "again")
    corpus.write_text("## one\nx = 1\n")
    with pytest.raises(EditError, match=r"some.edits, line 2: no header"):
        read_corpus(corpus)
