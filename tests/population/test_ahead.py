"""Programs are compiled in threads ahead of their turn."""

from __future__ import annotations

import threading

import pytest

from jaxvae.population.ahead import compiled_ahead


def test_the_next_program_compiles_while_the_present_one_runs():
    second = threading.Event()

    def compile_one(number):
        if number == 1:
            second.set()

    for number in compiled_ahead(range(3), compile_one, key=int, threads=1):
        if number == 0:
            assert second.wait(timeout=20)


def test_several_programs_compile_at_once():
    together = threading.Barrier(3)
    assert sorted(compiled_ahead(range(3), lambda _: together.wait(timeout=20), key=int, threads=3)) == [0, 1, 2]


def test_the_program_that_compiles_first_runs_first():
    fast = threading.Event()

    def compile_one(number):
        if number == 0:
            assert fast.wait(timeout=20)

    order = []
    for number in compiled_ahead([0, 1], compile_one, key=int, threads=2):
        order.append(number)
        fast.set()
    assert order == [1, 0]


def test_compiled_programs_keep_their_order():
    """The third program begins to compile when the first two are compiled."""
    third = threading.Event()

    def compile_one(number):
        if number == 2:
            third.set()

    order = []
    for number in compiled_ahead([0, 1, 0, 1, 2], compile_one, key=int, threads=1):
        order.append(number)
        assert third.wait(timeout=20)
    assert order == [0, 1, 0, 1, 2]


def test_an_error_is_raised_in_the_main_thread():
    with pytest.raises(ZeroDivisionError):
        list(compiled_ahead([1, 0, 2], lambda number: 1 / number, key=int, threads=1))


def test_programs_after_the_last_turn_are_not_compiled():
    """The thread that compiles ends when it has nothing left to compile."""
    started, go_on, compiled, threads = threading.Event(), threading.Event(), [], []

    def compile_one(number):
        compiled.append(number)
        threads.append(threading.current_thread())
        if number == 1:
            started.set()
            go_on.wait(timeout=20)

    turns = compiled_ahead(range(5), compile_one, key=int, threads=1)
    assert next(turns) == 0
    assert started.wait(timeout=20)
    turns.close()
    go_on.set()
    threads[0].join(timeout=20)
    assert compiled == [0, 1]
