"""The rule for positive values in masks of images and volumes."""

import numpy as np

WHOLE = 1e-3  # the largest distance of a label from a whole number
SMALL = 32  # whole numbers up to this one are labels, even of few pixels
LARGEST = 1 << 16  # the largest label
PLATEAU = 0.1  # at least this fraction of a label's pixels have equal neighbours


def binary(values: np.ndarray, *, lossy: bool = False) -> tuple[np.ndarray, str | None]:
    """The positive pixels of a mask, and a notice if it had to be thresholded.

    Labels are positive above 0. Other values are positive from half of their range (which includes 0) upwards.

    Values are labels if all are whole numbers and one of these holds: none is above 32, there are at most three
    different ones, or most of them fill areas. The values of an interpolated or antialiased edge fill no areas. The
    values of a mask with 0 and one other value are labels too.

    Args:
      values: [X, Y] or [X, Y, Z], finite numbers of any type; the largest component of colours.
      lossy: the file format changes values (JPEG): none are labels, and values up to 32 are noise.

    Returns:
      (bool of the same shape, one line without the file's name or None).

    >>> binary(np.array([0, 1, 2, 4]))
    (array([False,  True,  True,  True]), None)
    >>> binary(np.array([0.0, 0.1, 0.4, 0.6, 1.0]))[0]
    array([False, False, False,  True,  True])
    >>> binary(np.array([0.0, 0.1, 0.4, 0.6, 1.0]))[1]
    'its values, from 0 to 1, are not labels; those from 0.5 upwards were taken as positive'
    """
    if values.dtype == bool or values.size == 0:
        return values.astype(bool), None
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if high <= (SMALL if lossy else WHOLE):
        noise = high > 0 and not (values == values.flat[0]).all()
        return np.zeros_like(values, bool), f"its values are at most {high:.3g}, so none is positive" if noise else None
    between = (values != 0) & (values != high)
    if not between.any() or (not lossy and _are_labels(values, low, high)):
        return values > WHOLE, None
    cut = (low + high) / 2
    problem = f"its values, from {low:.6g} to {high:.6g}, are not labels"
    return values >= cut, f"{problem}; those from {cut:.6g} upwards were taken as positive"


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
    # The background and the inside of a blurred mask fill areas too, so only values between them count.
    return len(found) <= 3 or bool(np.mean(_among_equals(whole)[between] >= PLATEAU * counts[between]) > 0.5)


def _among_equals(whole: np.ndarray) -> np.ndarray:
    """For each value, the number of its pixels that equal the next pixel along every axis."""
    first = whole[(slice(-1),) * whole.ndim]
    equal = np.ones(first.shape, bool)
    for axis in range(whole.ndim):
        ahead = tuple(slice(1, None) if i == axis else slice(-1) for i in range(whole.ndim))
        equal &= first == whole[ahead]
    return np.bincount(first[equal], minlength=whole.max() + 1)
