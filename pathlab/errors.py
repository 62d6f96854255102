"""The one way to report a mistake that the user can fix: a message, exit code 2, no traceback."""

import difflib
import signal
import sys
import threading
from collections.abc import Callable, Iterable

USER_ERROR = 2  # exit code, as argparse uses it
INTERRUPTED = 130  # exit code, as shells report Ctrl-C
_interrupted = threading.Event()


class UserError(Exception):
    """Names the thing that is wrong, says what was expected and what to do."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence for an unknown name: the known one that looks most like it, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Expected one of {', '.join(known)}."


def run_command(main: Callable[[], int | None]) -> None:
    """Run a program's main function and exit: 0 or its return value, 2 for a UserError.

    SIGTERM (a scheduler's "time is up") is treated like Ctrl-C: both raise KeyboardInterrupt, so
    that whatever was being written is cleaned up.
    """
    signal.signal(signal.SIGTERM, _raise_interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as interrupt:
        print(f"\nstopped. {interrupt}".rstrip(), file=sys.stderr)
        sys.exit(INTERRUPTED)


def check_interrupt() -> None:
    """Raise KeyboardInterrupt if there was one that got lost.

    Python ignores what is raised inside a finalizer or a callback of the garbage collector, Ctrl-C
    included. Loops that run for hours call this.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _raise_interrupt(signum: int, frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt
