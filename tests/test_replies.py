"""A worker's replies have the form that their operation gives, or go no further."""

import math

import numpy as np
import pytest

from autograde.feedback import Frame, Problem
from autograde.replies import Reply, UnexpectedReply, read_problem

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (3, float, 3.0),
        ("inf", float, math.inf),
        (["a"], list[str], ["a"]),
        ([[], "cpu"], tuple[list[float], str], ([], "cpu")),
        ({"w": [2, 3]}, dict[str, list[int]], {"w": [2, 3]}),
        ({"f": ["class", ["x"]]}, dict[str, tuple[str, list[str]]], {"f": ("class", ["x"])}),
    ],
)
def test_a_reply_of_the_right_form_is_read(value, kind, result):
    assert Reply(value, {}).result(kind) == result


def test_not_a_number_is_a_number():
    assert math.isnan(Reply("nan", {}).result(float))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, float),
        (True, float),
        ("1", float),
        (10**400, float),
        (1.0, int),
        (True, int),
        ("abc", list[str]),
        ([1], list[str]),
        ([1.0, 2.0], tuple[float, float, int]),
        ({"w": [2, None]}, dict[str, list[int]]),
        ([["w", [2]]], dict[str, list[int]]),
    ],
)
def test_a_reply_of_another_form_is_refused(value, kind):
    with pytest.raises(UnexpectedReply):
        Reply(value, {}).result(kind)


def test_an_array_that_is_missing_is_refused():
    reply = Reply(None, {"output": np.zeros(3)})
    assert reply.array("output").shape == (3,)
    with pytest.raises(UnexpectedReply, match="no array 'gradient'"):
        reply.array("gradient")


@pytest.mark.parametrize("claim", [None, [], "x", {"frames": 3}, {"frames": [1, None]}])
def test_a_description_of_an_error_may_be_anything(claim):
    assert read_problem(claim).frames == ()


def test_a_description_of_an_error_is_bounded():
    long, frame = "x" * 5000, {"file": "y" * 500, "line": 10**9, "text": None}
    claim = {"type": long, "message": long, "refused": 1, "frames": [frame] * 9}
    frames = (Frame("y" * 200, "1000000000", "None"),) * 3
    assert read_problem(claim) == Problem(long[:100], long[:1000], False, frames)
