"""Evenly spaced parts of a data set."""

import numpy as np


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """The indices of at most `most` of `count` items, evenly spaced from the first to the last.

    >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, count - 1, min(count, most)).astype(int)
