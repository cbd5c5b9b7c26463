"""Signals that ask a process to end: recorded, so that it can end safely."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted(*numbers: signal.Signals) -> Iterator[list[int]]:
    """Record signals in a list instead of ending the process.

    A second Ctrl-C interrupts as usual. Python sends signals to the main thread only. In other threads the list stays
    empty and nothing changes.

    >>> with noted(signal.SIGTERM) as received:
    ...     signal.raise_signal(signal.SIGTERM)
    >>> received == [signal.SIGTERM]
    True
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in numbers} if is_main else {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
