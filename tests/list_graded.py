"""A pytest plugin: write the ids of the graded tests, by number, to the file $GRADED_TESTS."""

import json
import os
from pathlib import Path

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    marks = ((item.get_closest_marker("graded"), item.nodeid) for item in session.items)
    listed = {mark.args[0]: node for mark, node in marks if mark}
    Path(os.environ["GRADED_TESTS"]).write_text(json.dumps(listed))
