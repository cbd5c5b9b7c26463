"""A memory budget for threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """A number of bytes that threads reserve and release.

    A thread waits until the bytes it reserves are free. A request larger than the budget reserves all of it.

    >>> budget = Budget(100)
    >>> with budget.reserve(300):
    ...     budget.free
    0
    >>> budget.free
    100
    """

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._changed = Condition()

    @contextmanager
    def reserve(self, wanted: int) -> Iterator[None]:
        """Reserve bytes within a `with` block."""
        wanted = min(wanted, self.size)
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self.free)
            self.free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self.free += wanted
                self._changed.notify_all()
