"""Compile the next programs in threads while the present one runs."""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import jax

Program = TypeVar("Program")


def compiled_ahead(
    programs: Iterable[Program],
    compile_one: Callable[[Program], Any],
    *,
    key: Callable[[Program], Hashable],
    threads: int | None = None,
) -> Iterator[Program]:
    """The programs in their order; while one is not compiled, the next that is compiled takes its turn.

    Args:
      programs: the first ones begin to compile first.
      compile_one: called in a thread, such as a function that calls `compile_fit_many`.
      key: programs with the same key have the same shapes, so only the first of them is compiled.
      threads: programs that are compiled at once. The default is one on a CPU, which also trains. On an accelerator it
        is half of the host's cores, at most 8.

    >>> sorted(compiled_ahead("abcab", print, key=str, threads=1))
    a
    b
    c
    ['a', 'a', 'b', 'b', 'c']
    """
    waiting = list(programs)
    compiling: dict[Hashable, Future[Any]] = {}
    pool = ThreadPoolExecutor(_default_threads() if threads is None else threads)
    try:
        for program in waiting:
            if key(program) not in compiling:
                compiling[key(program)] = pool.submit(compile_one, program)
        while waiting:
            of_each = [compiling[key(program)] for program in waiting]
            wait(of_each, return_when=FIRST_COMPLETED)
            place = next(place for place, compiled in enumerate(of_each) if compiled.done())
            of_each[place].result()
            yield waiting.pop(place)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _default_threads() -> int:
    return 1 if jax.default_backend() == "cpu" else max(1, min(8, (os.cpu_count() or 1) // 2))
