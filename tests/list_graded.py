"""A pytest plugin: write the graded tests that were collected, by number, to $GRADED_TESTS."""

import json
import os
from pathlib import Path


def pytest_collection_finish(session):
    listed = {}
    for item in session.items:
        mark = item.get_closest_marker("graded")
        if mark:
            trains = "unless_fast" in item.fixturenames
            listed[mark.args[0]] = {"node": item.nodeid, "points": mark.args[2], "trains": trains}
    Path(os.environ["GRADED_TESTS"]).write_text(json.dumps(listed))
