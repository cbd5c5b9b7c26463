"""How the benchmarks take time: warm up, then rounds in which every contender runs once, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds a call."""

    median: float
    minimum: float


def alternate(contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2) -> dict[str, Timing]:
    """Times every contender, `rounds` times each, in alternating order, so that a slow minute of the machine hits all.

    A contender returns when its work is done.
    """
    for run in contenders.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            seconds[name].append(seconds_of(contenders[name]))
    return {name: Timing(statistics.median(times), min(times)) for name, times in seconds.items()}


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
