"""Compile the next programs in threads while the present one runs."""

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    """The programs in the order in which they are compiled, each once it is.

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
    alike: dict[Hashable, list[Program]] = {}
    for program in programs:
        alike.setdefault(key(program), []).append(program)
    pool = ThreadPoolExecutor(_default_threads() if threads is None else threads)
    try:
        compiling = {pool.submit(compile_one, same[0]): same for same in alike.values()}
        for compiled in as_completed(compiling):
            compiled.result()
            yield from compiling[compiled]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _default_threads() -> int:
    return 1 if jax.default_backend() == "cpu" else max(1, min(8, (os.cpu_count() or 1) // 2))
