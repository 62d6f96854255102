"""The same settings as before, or refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

from pathlab.errors import UserError
from pathlab.settings import check_same, differences, merge, read_settings

pytestmark = pytest.mark.quick

SAVED = {"model": "cnn", "epochs": 3, "max_steps": 100, "device": "cpu", "sizes": [1, 2]}


def test_typed_before_saved_before_defaults():
    defaults = {"model": "mlp", "seed": 0, "device": "auto"}
    assert merge(defaults, {}, {"seed": 1}) == defaults | {"seed": 1}
    typed = {"model": "cnn", "device": "cuda"}
    merged = merge(defaults, SAVED, typed, may_change=("device",))
    assert merged == {**SAVED, "seed": 0, "device": "cuda"}


@pytest.mark.parametrize(
    "typed, words",
    [
        ({"epochs": 4}, ["--epochs was 3, is 4", "leave --epochs out"]),
        ({"max_steps": 5, "seed": 0}, ["--max-steps was 100, is 5", "leave --max-steps out"]),
        ({"seed": 1}, ["--seed was 0, is 1"]),
        ({"device": "mps"}, ["--device was cpu, is mps"]),
    ],
)
def test_typed_settings_that_contradict_a_saved_run(typed, words):
    with pytest.raises(UserError) as error:
        merge({"seed": 0}, SAVED, typed, folder=Path("runs/a"), folder_flag="--run")
    for word in ["runs/a holds a run with other settings", *words, "another --run"]:
        assert word in str(error.value)


def test_settings_are_compared_as_json_has_them():
    now = {**SAVED, "sizes": (1, 2), "data": Path("a")}
    assert differences({**SAVED, "data": "a"}, now) == {}
    assert merge({}, {"data": "a"}, {"data": Path("a")}) == {"data": Path("a")}


def test_nested_settings_and_their_order():
    saved = {"parts": {"a": {"params": {"x": [1], "y": [2]}, "metric": "m"}}, "trials": 3}
    other = {"parts": {"a": {"params": {"x": [1, 2], "y": [2]}, "metric": "m"}}, "trials": 4}
    turned = {"parts": {"a": {"params": {"y": [2], "x": [1]}, "metric": "m"}}, "trials": 3}
    assert differences(saved, other, may_change=("trials",)) == {
        "parts.a.params.x": "x was [1], is [1, 2]"
    }
    assert list(differences(saved, other)) == ["parts.a.params.x", "trials"]
    (words,) = differences(saved, turned).values()
    assert words == "the order of params was x, y, is y, x"
    with pytest.raises(UserError, match=r"^it differs \(x was .*; trials was 3, is 4\)\. Undo it"):
        check_same(saved, other, problem="it differs", advice="Undo it.")


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"a": 1}'])
def test_a_settings_file_that_cannot_be_used(text, tmp_path):
    path = tmp_path / "settings.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"settings\.json cannot be read \(.*\)\. Do this"):
        read_settings(path, "Do this.", required=("a", "b"))
    path.write_text(json.dumps({"a": 1, "b": 2}))
    assert read_settings(path, "", required=("a", "b")) == {"a": 1, "b": 2}


def test_it_needs_nothing_heavy():
    code = "import pathlab.settings, sys; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
