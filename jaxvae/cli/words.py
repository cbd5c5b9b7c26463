"""Words in the output of the commands."""

from collections.abc import Iterable, Sequence
from typing import Any

from jaxvae.errors import counted as counted


def shortened(names: Sequence[str]) -> str:
    """The first of some names, and the number of the others.

    >>> shortened(["a", "b", "c"]), shortened(["a"])
    ('a and 2 more', 'a')
    """
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def flag(name: str) -> str:
    """The flag of an argument.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def spaced(values: Iterable[Any]) -> str:
    """Values as one types them after a flag.

    >>> spaced((16, 32))
    '16 32'
    """
    return " ".join(map(str, values))
