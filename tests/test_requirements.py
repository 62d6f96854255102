"""The lock file has an exact version of all that the loose requirements ask for."""

import pytest
from conftest import REPO
from packaging.requirements import Requirement

pytestmark = pytest.mark.quick


def requirements(file: str) -> list[Requirement]:
    """The requirements of a file; options and comments are left out."""
    lines = (line.split("#")[0].strip() for line in (REPO / file).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("kind", ["", "-capstones", "-dev"])
def test_the_lock_file_satisfies_the_requirements(kind):
    locked = {}
    for requirement in requirements("requirements.lock"):
        locked.setdefault(requirement.name.lower().replace("_", "-"), []).append(requirement)
    for wanted in requirements(f"requirements{kind}.txt"):
        found = locked.get(wanted.name.lower().replace("_", "-"), [])
        assert found, f"{wanted} is not in requirements.lock: write it anew"
        for exact in found:
            (pin,) = exact.specifier
            assert pin.operator == "==" and wanted.specifier.contains(pin.version), exact
