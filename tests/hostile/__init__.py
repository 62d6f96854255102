"""Submissions that try to get points, data or rights that are not theirs.

Most are texts in the *.attacks files beside this one (attack.py says how to read them); those that
make archives and weights are functions in archives.py and weights.py.
"""

from pathlib import Path

from hostile import archives, weights
from hostile.attack import Attack, Marks, read_attacks

HERE = Path(__file__).parent
ATTACKS: dict[str, Attack] = {
    **{name: a for path in sorted(HERE.glob("*.attacks")) for name, a in read_attacks(path)},
    **archives.ATTACKS,
    **weights.ATTACKS,
}

__all__ = ["ATTACKS", "Attack", "Marks"]
