"""Messages survive the way through a pipe; whatever else comes is refused, in time and bounds."""

import contextlib
import json
import os
import struct
import threading
import time
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autograde.sandbox.conversation import Conversation
from autograde.untrusted import protocol
from autograde.untrusted.protocol import (
    DTYPES,
    ProtocolError,
    Timeout,
    decode,
    encode,
    receive,
    send,
)

pytestmark = pytest.mark.quick

MIB = 1 << 20
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arrays = st.dictionaries(
    st.text(),
    hnp.arrays(
        st.sampled_from(sorted(DTYPES)), hnp.array_shapes(min_dims=0, max_dims=5, min_side=0)
    ),
    max_size=4,
)


def close(*ends: int) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def pipe():
    """A pipe's two ends."""
    ends = os.pipe()
    yield ends
    close(*ends)


class Far(NamedTuple):
    """The worker's ends of the pipes of a conversation."""

    requests: int
    replies: int


@pytest.fixture
def talk():
    """A conversation and the worker's end of it."""
    (requests, near_requests), (near_replies, replies) = os.pipe(), os.pipe()
    conversation = Conversation(os.fdopen(near_requests, "wb", 0), os.fdopen(near_replies, "rb", 0))
    yield conversation, Far(requests, replies)
    close(requests, replies)
    conversation.close()


def through_a_pipe(data: bytes):
    """What receive makes of these bytes, after which the pipe is closed."""
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb", 0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return receive(reader)
    finally:
        while os.read(reader, MIB):
            pass
        thread.join()
        os.close(reader)


@settings(deadline=None)
@given(json_values, arrays)
def test_what_is_sent_arrives(head, named):
    got, out = through_a_pipe(encode(head, named))
    assert got == head
    assert list(out) == list(named)
    for name, array in named.items():
        assert out[name].dtype == array.dtype
        assert out[name].shape == array.shape
        np.testing.assert_array_equal(out[name], array)


def test_several_messages_in_a_row(pipe):
    reader, writer = pipe
    for number in range(3):
        send(writer, encode(number, {"a": np.full(number, number)}))
    for number in range(3):
        head, out = receive(reader)
        assert head == number
        assert out["a"].tolist() == [number] * number


@given(st.binary(max_size=200), st.binary(max_size=50))
@example(b"[" * 100_000, b"")
@example(b'{"head": ' + b"9" * 10_000 + b', "arrays": []}', b"")
@example(b'{"head": 1e999, "arrays": []}', b"")
@example(b'{"head": NaN, "arrays": []}', b"")
@example(b'{"head": -Infinity, "arrays": []}', b"")
@example(b"\xff\xfe[\x00", b"")
@example(b"null", b"")
@example(b'{"head": 1}', b"")
def test_arbitrary_bytes_are_refused(header, body):
    with pytest.raises(ProtocolError):
        decode(header, body)


odd = st.one_of(
    json_values,
    st.sampled_from([*sorted(DTYPES), "object", "V8", "float16", "<f4", "U9"]),
    st.lists(st.integers(-2, 5) | st.sampled_from([2**28, 2**31, 2**62, 2**63, 10**400, True])),
)
rows = st.lists(st.lists(odd, max_size=4) | odd, max_size=4)


@given(json_values, rows | odd, st.binary(max_size=64))
@example(0, [["a", "float32", [2**28] * 8]], b"")
@example(0, [["a", "float32", [0, 2**28, 2**28, 2**28]]], b"")
@example(0, [["a", "float32", [-1, -4]]], b"")
@example(0, [["a", "float32", [1] * 40]], b"1234")
@example(0, [["a", "float32", [True]]], b"1234")
@example(0, [["a", ["float32"], [1]]], b"1234")
@example(0, [["a", "float32", {"0": 1}]], b"1234")
@example(0, [["a", "float32", [1]], ["a", "float32", [1]]], b"12345678")
@example(0, {"abc": 1}, b"")
def test_odd_descriptions_are_refused_or_right(head, described, body):
    """Either ProtocolError, or arrays of the dtypes and shapes that were announced."""
    header = json.dumps({"head": head, "arrays": described}).encode()
    try:
        _, out = decode(header, body)
    except ProtocolError:
        return
    assert sum(array.nbytes for array in out.values()) == len(body)
    assert [[n, a.dtype.name, list(a.shape)] for n, a in out.items()] == [
        [name, dtype, list(shape)] for name, dtype, shape in described
    ]


@settings(deadline=None)
@given(st.binary(max_size=100))
@example(b"")
@example(struct.pack("<II", 2**32 - 1, 0))
@example(struct.pack("<II", 0, 2**32 - 1))
@example(struct.pack("<II", 0, 0))
@example(struct.pack("<II", 2, 0) + b"{}")
def test_arbitrary_streams_are_refused(data):
    try:
        through_a_pipe(data)
    except EOFError:
        assert data == b""
    except ProtocolError:
        assert data


@settings(deadline=None, max_examples=50)
@given(json_values, arrays, st.data())
def test_cut_or_changed_messages(head, named, data):
    message = encode(head, named)
    cut = data.draw(st.integers(1, len(message) - 1))
    with pytest.raises(ProtocolError):
        through_a_pipe(message[:cut])
    place = data.draw(st.integers(0, len(message) - 1))
    changed = bytearray(message)
    changed[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        through_a_pipe(bytes(changed))


def test_a_boolean_is_0_or_1():
    header = b'{"head": 0, "arrays": [["a", "bool", [3]]]}'
    array = decode(header, b"\x00\x01\x02")[1]["a"]
    assert array.tobytes() == b"\x00\x01\x01"


@pytest.mark.parametrize("lengths", [(2 * MIB, 0), (10, 2**32 - 1), (2**32 - 1, 2**32 - 1)])
def test_too_long_is_refused_before_memory_is_taken(pipe, lengths):
    reader, writer = pipe
    os.write(writer, struct.pack("<II", *lengths) + bytes(1000))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="too long"):
            receive(reader)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_announced_bytes_take_no_memory_before_they_come(talk):
    conversation, far = talk
    os.write(far.replies, struct.pack("<II", 100, 250 * MIB) + bytes(50_000))
    tracemalloc.start()
    try:
        with pytest.raises(Timeout):
            conversation.exchange(b"", time.monotonic() + 0.2)
        assert tracemalloc.get_traced_memory()[1] < 2 * MIB
    finally:
        tracemalloc.stop()


def test_single_bytes_take_no_more_memory_than_whole_messages():
    reader, writer = os.pipe()
    body = 100_000

    def dribble():
        for byte in struct.pack("<II", 30, body) + bytes(body):
            os.write(writer, bytes([byte]))
            if not byte % 100:
                time.sleep(0)
        os.close(writer)

    thread = threading.Thread(target=dribble)
    tracemalloc.start()
    try:
        thread.start()
        with pytest.raises(ProtocolError):
            receive(reader)
        assert tracemalloc.get_traced_memory()[1] < 6 * body
    finally:
        tracemalloc.stop()
        thread.join()
        os.close(reader)


def test_requests_and_replies(talk):
    conversation, far = talk

    def work():
        for _ in range(3):
            head, out = receive(far.requests)
            send(far.replies, encode(head + 1, {"a": out["a"] * 2}))

    thread = threading.Thread(target=work)
    thread.start()
    for number in (1, 10, 100):
        message = encode(number, {"a": np.full(100_000, number)})
        head, out = conversation.exchange(message, time.monotonic() + 10)
        assert head == number + 1
        assert out["a"].tolist() == [2 * number] * 100_000
    thread.join()


@pytest.mark.parametrize("start", [b"", b"\x05", struct.pack("<II", 5, 0) + b"[1"])
def test_an_exchange_gives_up_at_its_deadline(talk, start):
    conversation, far = talk
    os.write(far.replies, start)
    began = time.monotonic()
    with pytest.raises(Timeout):
        conversation.exchange(b"", began + 0.2)
    assert 0.15 < time.monotonic() - began < 5


def test_a_trickle_does_not_move_the_deadline(talk):
    conversation, far = talk
    stop = threading.Event()

    def trickle():
        os.write(far.replies, struct.pack("<II", 1000, 0))
        while not stop.wait(0.01):
            os.write(far.replies, b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(Timeout):
            conversation.exchange(b"", began + 0.3)
    finally:
        stop.set()
        thread.join()
    assert time.monotonic() - began < 5


def test_an_exchange_gives_up_when_nobody_reads(talk):
    began = time.monotonic()
    with pytest.raises(Timeout):
        talk[0].exchange(bytes(10 * MIB), began + 0.2)
    assert 0.15 < time.monotonic() - began < 5


def test_a_reply_that_comes_too_late_is_nobodys(talk):
    conversation, far = talk
    with pytest.raises(Timeout):
        conversation.exchange(encode(1), time.monotonic() + 0.1)
    send(far.replies, encode("late"))
    send(far.replies, encode("next"))
    assert conversation.exchange(encode(2), time.monotonic() + 10) == ("next", {})


def test_what_does_not_come_as_a_message_is_raised(talk):
    conversation, far = talk
    os.write(far.replies, struct.pack("<II", 2, 0) + b"{}")
    with pytest.raises(ProtocolError):
        conversation.exchange(encode(1), time.monotonic() + 10)
    send(far.replies, encode(0, {"a": np.zeros(100)}))
    with pytest.raises(ProtocolError, match="too long"):
        conversation.exchange(encode(1), time.monotonic() + 10, 100)


def test_the_end_of_a_worker_is_the_end_of_its_pipe(talk):
    conversation, far = talk
    os.close(far.replies)
    with pytest.raises(EOFError):
        conversation.exchange(encode(1), time.monotonic() + 10)


def test_a_request_to_a_closed_pipe(talk):
    conversation, far = talk
    os.close(far.requests)
    with pytest.raises(BrokenPipeError):
        conversation.exchange(bytes(100), time.monotonic() + 1)


def test_the_pipes_are_closed_with_the_conversation():
    (requests, near_requests), (near_replies, replies) = os.pipe(), os.pipe()
    near = os.fdopen(near_requests, "wb", 0), os.fdopen(near_replies, "rb", 0)
    conversation = Conversation(*near)
    conversation.close()
    assert near[0].closed
    assert near[1].closed
    close(requests, replies)


def test_file_numbers_above_1023(pipe):
    """select() could not wait for these; a grader of a whole class has many files open."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("no such file numbers here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    (reader, writer), high = os.pipe(), os.dup2(pipe[0], 1500)
    conversation = Conversation(os.fdopen(writer, "wb", 0), os.fdopen(high, "rb", 0))
    try:
        send(pipe[1], encode(1))
        assert conversation.exchange(encode(2), time.monotonic() + 10) == (1, {})
    finally:
        conversation.close()
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_cannot_be_said_is_an_error_of_the_sender():
    for array in (np.zeros(2, np.float16), np.zeros(2, object), np.array(["a"])):
        with pytest.raises(KeyError):
            encode(None, {"a": array})
    assert protocol.MAX_HEADER + protocol.MAX_ARRAYS < 2**32
