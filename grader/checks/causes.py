"""What students are told about known mistakes: the tables of causes.toml."""

from pathlib import Path

from autograde.assignment import read_toml

# By function or kind of mistake, and then by the mistake's name in reference.py, probes.py or
# averages.py: the words for it.
MISTAKES: dict[str, dict[str, str]] = read_toml(
    Path(__file__).resolve().parents[1] / "causes.toml"
)["mistakes"]
