"""The memory budget of threads is never exceeded, and no thread waits for ever."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from jaxvae.data.budget import Budget


def test_threads_never_reserve_more_than_the_budget():
    budget, lock = Budget(100), Lock()
    held, most = 0, 0

    def work(wanted: int) -> None:
        nonlocal held, most
        with budget.reserve(wanted):
            with lock:
                held += min(wanted, 100)
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= min(wanted, 100)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [30, 1000, 0, 60, 100] * 20))
    assert 60 <= most <= 100
    assert budget.free == 100


def test_bytes_are_released_after_an_error():
    budget = Budget(10)
    with pytest.raises(ValueError, match="damaged"), budget.reserve(7):
        raise ValueError("damaged")
    assert budget.free == 10
