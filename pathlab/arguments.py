"""argparse types that say in words what a flag's value must be. Imports nothing heavy."""

import argparse
import math
from collections.abc import Callable


def number(
    kind: type[int] | type[float], expected: str, is_right: Callable[[float], bool]
) -> Callable[[str], float]:
    """An argparse type: a finite int or float for which is_right holds.

    expected: what is_right wants, in words, such as "a whole number from 1".
    """

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and is_right(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


positive_int = number(int, "a whole number from 1", lambda value: value >= 1)
int_from_two = number(int, "a whole number from 2", lambda value: value >= 2)
not_negative_int = number(int, "a whole number from 0", lambda value: value >= 0)
odd_int = number(int, "an odd whole number, such as 3", lambda value: value >= 1 and value % 2 == 1)
positive_float = number(float, "a positive number, such as 0.001", lambda value: value > 0)
not_negative_float = number(
    float, "zero or a positive number, such as 0.0001", lambda value: value >= 0
)
below_one = number(float, "a number from 0 to below 1", lambda value: 0 <= value < 1)
