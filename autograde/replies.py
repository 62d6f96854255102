"""What a worker replied: claims, whose form is checked here, once, before anything uses them."""

from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin

import numpy as np

from autograde.feedback import Frame, Problem

T = TypeVar("T")


class UnexpectedReply(Exception):
    """A reply of another form than its operation gives: a forged one, or the grader's mistake."""


@dataclass(frozen=True)
class Reply:
    """value: anything JSON can say; arrays: by name, of a dtype in protocol.DTYPES."""

    value: object
    arrays: dict[str, np.ndarray]

    def result(self, kind: type[T]) -> T:
        """The value, if it is of this type, such as dict[str, list[int]]. Raises UnexpectedReply.

        A tuple is claimed as a list; "nan", "inf" and "-inf" are floats.
        """
        result: T = checked(self.value, kind)
        return result

    def array(self, name: str) -> np.ndarray:
        """The array of this name. Raises UnexpectedReply."""
        if name not in self.arrays:
            raise UnexpectedReply(f"there is no array {name!r}")
        return self.arrays[name]


def checked(value: object, kind: Any) -> Any:
    """`value` as a `kind`: str, bool, int, float, or a list, tuple or dict of these by name."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is float and (type(value) in (int, float) or value in ("nan", "inf", "-inf")):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            raise UnexpectedReply("a number is too large") from None
    if origin is None and type(value) is kind:
        return value
    if origin is list and isinstance(value, list):
        return [checked(item, args[0]) for item in value]
    if origin is tuple and isinstance(value, list) and len(value) == len(args):
        return tuple(map(checked, value, args))
    if origin is dict and isinstance(value, dict):
        return {name: checked(item, args[1]) for name, item in value.items()}
    expected = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise UnexpectedReply(f"a {type(value).__name__} instead of {expected}")


def read_problem(claim: object) -> Problem:
    """A worker's description of an error, reduced to texts of bounded length."""
    if not isinstance(claim, dict):
        return Problem()
    frames = claim.get("frames")
    return Problem(
        kind=str(claim.get("type", ""))[:100],
        message=str(claim.get("message", ""))[:1000],
        refused=claim.get("refused") is True,
        frames=tuple(
            Frame(*(str(frame.get(key, ""))[:200] for key in ("file", "line", "text")))
            for frame in (frames[:3] if isinstance(frames, list) else [])
            if isinstance(frame, dict)
        ),
    )
