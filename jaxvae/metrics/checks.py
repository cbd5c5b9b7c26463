"""Checks of scores and labels. InputError says which array is wrong and how."""

import numpy as np

from jaxvae.errors import InputError


def checked(scores: np.ndarray, labels: np.ndarray, name: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """The arrays of `paired`, if both classes occur; `name` is for errors."""
    scores, labels = paired(scores, labels, name)
    if labels.all() or not labels.any():
        missing = "healthy (False)" if labels.any() else "anomalous (True)"
        raise InputError(
            f"{name} lacks a class: none of its {labels.size:,} entries is {missing}; add images with some"
        )
    return scores, labels


def paired(scores: np.ndarray, labels: np.ndarray, name: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Scores as `as_scores` returns them, and bool labels of the same shape."""
    scores, labels = as_scores(scores), as_bool(labels, name)
    if scores.shape != labels.shape:
        raise InputError(f"scores has shape {scores.shape} and {name} {labels.shape}: must be of one shape")
    return scores, labels


def as_scores(scores: np.ndarray) -> np.ndarray:
    """Scores as float32 or float64; they must be finite and not empty."""
    scores = np.asarray(scores)
    dtype = next((dtype for dtype in (np.float32, np.float64) if np.can_cast(scores.dtype, dtype)), None)
    if dtype is None:
        raise InputError(f"scores has dtype {scores.dtype}: must be real numbers of at most 64 bits")
    if scores.size == 0:
        raise InputError(f"scores is empty, of shape {scores.shape}: must have at least one entry")
    scores = scores.astype(dtype, copy=False)
    # The minimum is NaN if any score is. Finding the extremes needs no second array of this size.
    if not np.isfinite([scores.min(), scores.max()]).all():
        nans, infinite = np.count_nonzero(np.isnan(scores)), np.count_nonzero(np.isinf(scores))
        raise InputError(
            f"scores holds {nans:,} NaN and {infinite:,} infinite values among {scores.size:,}; repair their source, "
            "or remove them from scores and labels"
        )
    return scores


def as_bool(array: np.ndarray, name: str) -> np.ndarray:
    """The array, which must be bool: integers would be used as indices."""
    array = np.asarray(array)
    if array.dtype != bool:
        raise InputError(f"{name} has dtype {array.dtype}: must be bool, for example {name} > 0")
    return array
