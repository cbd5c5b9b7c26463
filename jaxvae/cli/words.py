"""How the commands speak of what was typed, and of what they did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(8, "run")
    ('1 run', '8 runs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shortened(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are.

    >>> shortened(["a", "b", "c"]), shortened(["a"])
    ('a and 2 more', 'a')
    """
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def flag(name: str) -> str:
    """A flag as it is typed.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def spaced(values: Iterable[Any]) -> str:
    """Values as they are typed after a flag.

    >>> spaced((16, 32))
    '16 32'
    """
    return " ".join(map(str, values))
