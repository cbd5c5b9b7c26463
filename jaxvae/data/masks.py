"""Masks of images and volumes: the one rule that says which values are positive."""

from __future__ import annotations

import numpy as np

WHOLE = 1e-3  # How far a label may be from its whole number.
SMALL = 32  # Whole numbers up to this one are labels, however few pixels have them.
LARGEST = 1 << 16  # No label is larger.
PLATEAU = 0.1  # The share of a label's pixels that lie among their equals.


def binary(values: np.ndarray, *, lossy: bool = False) -> tuple[np.ndarray, str | None]:
    """Where a mask is positive, and a notice if its values had to be cut.

    Labels are positive above 0. All other values are positive from half of their range on, which includes 0.

    Values are labels if all are whole numbers and at least one of these holds: none is above 32; there are at most
    three of them; most of them fill areas. The values between 0 and 1 of an interpolated or antialiased edge fill none.
    A mask of 0 and one other value is labels too.

    Args:
      values: [X, Y] or [X, Y, Z], finite numbers of any type; of a colour, its largest component.
      lossy: the file format changes values (JPEG): none are labels, and those up to 32 are noise.
    Returns:
      (bool of the same shape, one line without the file's name or None).

    >>> binary(np.array([0, 1, 2, 4]))
    (array([False,  True,  True,  True]), None)
    >>> binary(np.array([0.0, 0.1, 0.4, 0.6, 1.0]))[0]
    array([False, False, False,  True,  True])
    >>> binary(np.array([0.0, 0.1, 0.4, 0.6, 1.0]))[1]
    'its values, from 0 to 1, are no labels; those from 0.5 on are positive'
    """
    if values.dtype == bool or values.size == 0:
        return values.astype(bool), None
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if high <= (SMALL if lossy else WHOLE):
        noise = high > 0 and not (values == values.flat[0]).all()
        return np.zeros(values.shape, bool), f"its values reach only {high:.3g}, so none is positive" if noise else None
    between = (values != 0) & (values != high)
    if not between.any() or (not lossy and _are_labels(values, low, high)):
        return values > WHOLE, None
    cut = (low + high) / 2
    return (
        values >= cut,
        f"its values, from {low:.6g} to {high:.6g}, are no labels; those from {cut:.6g} on are positive",
    )


def _are_labels(values: np.ndarray, low: float, high: float) -> bool:
    largest = max(-low, high)
    if largest > LARGEST or (values.dtype.kind == "f" and np.abs(values - np.rint(values)).max() > WHOLE):
        return False
    if largest <= SMALL:
        return True
    whole = np.squeeze(np.rint(values).astype(np.int32)) - round(low)
    counts = np.bincount(whole.ravel())
    found = np.flatnonzero(counts)
    between = found[(found != -round(low)) & (found != found[-1])]
    # Background and the inside of a blurred mask fill areas too, so they tell nothing.
    return len(found) <= 3 or bool(np.mean(_among_equals(whole)[between] >= PLATEAU * counts[between]) > 0.5)


def _among_equals(whole: np.ndarray) -> np.ndarray:
    """For each value, how many pixels have it that equal the next pixel along every axis."""
    first = whole[(slice(-1),) * whole.ndim]
    equal = np.ones(first.shape, bool)
    for axis in range(whole.ndim):
        ahead = tuple(slice(1, None) if i == axis else slice(-1) for i in range(whole.ndim))
        equal &= first == whole[ahead]
    return np.bincount(first[equal], minlength=whole.max() + 1)
