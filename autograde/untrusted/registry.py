"""What the trusted side can request of a worker: the operations of the course, by name.

A course's operations.py decorates functions with `operation`: f(args, arrays) -> (result, arrays),
where args and result are what JSON can say, and arrays are NumPy arrays by name.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # in the sandbox the files lie beside each other
    from autograde.untrusted import protocol
else:
    import protocol

Arrays = protocol.Arrays
Operation = Callable[[dict[str, Any], Arrays], tuple[Any, Arrays]]
OPERATIONS: dict[str, Operation] = {}
REQUESTS, REPLIES = 0, 1  # file descriptors; worker.py moves them out of a submission's way


class Refused(Exception):
    """What a submission returned cannot be sent on. args[0]: what came instead."""


def operation(function: Operation) -> Operation:
    """Let the trusted side request this function by its name."""
    OPERATIONS[function.__name__] = function
    return function


def member(module: str, name: str) -> Any:
    """What a loaded module of the submission calls `name`. Raises AttributeError."""
    return getattr(sys.modules[module], name)


def request_batch(split: str, number: Any) -> Arrays:
    """The arrays of one batch, fetched from the trusted side in the middle of an operation."""
    protocol.send(REPLIES, protocol.encode({"want": split, "batch": number}))
    return protocol.receive(REQUESTS)[1]
