"""Messages to and from a worker, with deadlines that hold on every system.

Only some systems can wait for a pipe and a clock at once (poll), and only some can give up a read
that has begun. A thread that does the reading and writing can always be left behind.
"""

import queue
import threading
import time
from typing import IO

from autograde.untrusted import protocol
from autograde.untrusted.protocol import Message

Outcome = Message | Exception
Order = tuple[bytes, int, "queue.SimpleQueue[Outcome]"]


class Conversation:
    """Requests over one pipe and replies over another, both of which it closes in the end."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]):
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        arguments = (self._orders, requests, replies)
        self._thread = threading.Thread(target=_work, args=arguments, name="pipes", daemon=True)
        self._thread.start()

    def exchange(
        self, message: bytes, deadline: float, max_arrays: int = protocol.MAX_ARRAYS
    ) -> Message:
        """Send an encoded message and return the next one that comes.

        deadline: time.monotonic() at which to give up. Raises protocol.Timeout, after which the
        conversation is of no more use; ProtocolError; EOFError if the other side closed its pipe
        before the first byte; OSError if it does not read any more.
        """
        outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._orders.put((message, max_arrays, outcomes))
        try:
            outcome = outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise protocol.Timeout from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self, seconds: float = 1.0) -> None:
        """End the thread, which waits for nothing more once all that had the pipes is killed."""
        self._orders.put(None)
        self._thread.join(seconds)


def _work(
    orders: "queue.SimpleQueue[Order | None]", requests: IO[bytes], replies: IO[bytes]
) -> None:
    # Nobody else closes the pipes: the number of a closed one may soon belong to another file.
    with requests, replies:
        while order := orders.get():
            message, max_arrays, outcomes = order
            try:
                protocol.send(requests.fileno(), message)
                outcomes.put(protocol.receive(replies.fileno(), max_arrays))
            except Exception as error:
                outcomes.put(error)
