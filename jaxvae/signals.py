"""Signals that ask a process to end, noted, so that it can end at a point from which it can go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noted(*numbers: signal.Signals) -> Iterator[list[int]]:
    """A list that these signals fill instead of ending the process; a second Ctrl-C interrupts as ever.

    Args:
      numbers: signals, `signal.SIGTERM` and such. In the main thread only, as Python has it.

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

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
