"""What the trusted side and the worker say to each other: JSON headers and raw arrays, over pipes.

A message is, in this order:

    8 bytes    the lengths of header and arrays, two unsigned 32-bit little-endian integers
    header     JSON: {"head": any value, "arrays": [[name, dtype, shape], ...]}
    arrays     the bytes of all arrays, C order, little-endian, one after the other

Nothing is pickled, and nothing that is read is believed: lengths, dtypes, names and shapes are
checked before memory is taken for them. Both sides use this module; only NumPy is needed.
"""

import json
import math
import os
import struct
from typing import Any, NoReturn

import numpy as np

MAX_HEADER = 1 << 20  # bytes
MAX_ARRAYS = 256 << 20  # bytes
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in ("float32", "float64", "int64", "bool", "uint8")
}
Arrays = dict[str, np.ndarray[Any, Any]]
Message = tuple[Any, Arrays]  # the head and the arrays
_LENGTHS = struct.Struct("<II")


class ProtocolError(Exception):
    """What came is not a message: cut off, too long, or not of the announced form."""


class Timeout(Exception):
    """The message did not come, or was not read, in time."""


def encode(head: object, arrays: Arrays | None = None) -> bytes:
    """One message as bytes. Arrays are of a dtype in DTYPES; `head` is anything JSON can say."""
    named, parts = [], []
    for name, array in (arrays or {}).items():
        dtype = DTYPES[array.dtype.name]
        named.append([name, array.dtype.name, list(array.shape)])
        parts.append(np.ascontiguousarray(array, dtype).tobytes())
    header = json.dumps({"head": head, "arrays": named}).encode()
    body = b"".join(parts)
    return _LENGTHS.pack(len(header), len(body)) + header + body


def decode(header: bytes | bytearray, body: bytes | bytearray) -> Message:
    """The head and the arrays of a message. Raises ProtocolError for anything but a good one."""
    try:
        message = json.loads(header, parse_constant=_refuse, parse_float=_finite)
        head, named = message["head"], message["arrays"]
        arrays: Arrays = {}
        start = 0
        for name, dtype_name, shape in named:
            dtype = DTYPES[dtype_name]
            if not isinstance(name, str) or name in arrays:
                raise ValueError(f"bad array name {name!r}")
            if len(shape) > 8 or not all(type(n) is int and 0 <= n <= MAX_ARRAYS for n in shape):
                raise ValueError(f"bad shape {shape!r}")
            end = start + math.prod(shape) * dtype.itemsize
            if end > len(body):
                raise ValueError("bytes are missing")
            part = np.frombuffer(memoryview(body)[start:end], dtype)
            if dtype.kind == "b":  # a byte other than 0 and 1 would be True, but not equal to it
                part = part.view(np.uint8) != 0
            arrays[name] = part.reshape(shape)
            start = end
        if start != len(body):
            raise ValueError("bytes are left over")
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ProtocolError(f"not a message: {error}") from error
    return head, arrays


def receive(file: int, max_arrays: int = MAX_ARRAYS) -> Message:
    """Read one message from a file descriptor. Raises ProtocolError, and EOFError if the other
    side closed the pipe before the first byte."""
    lengths = _read(file, _LENGTHS.size, first=True)
    header_length, body_length = _LENGTHS.unpack(lengths)
    if header_length > MAX_HEADER or body_length > max_arrays:
        raise ProtocolError(f"a message of {header_length} + {body_length} bytes is too long")
    header = _read(file, header_length)
    return decode(header, _read(file, body_length))


def send(file: int, message: bytes) -> None:
    """Write an encoded message to a file descriptor. Raises BrokenPipeError if nobody reads."""
    view = memoryview(message)
    while view:
        view = view[os.write(file, view) :]


def _read(file: int, length: int, first: bool = False) -> bytearray:
    data = bytearray()  # not a list of parts: a million parts of one byte would take 50 times more
    while len(data) < length:
        part = os.read(file, min(length - len(data), 1 << 20))
        if not part:
            if first and not data:
                raise EOFError("the pipe was closed")
            raise ProtocolError("the message was cut off")
        data += part
    return data


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # 1e999
        raise ValueError("a number is too large")
    return value
