"""Checks of scores and labels."""

from __future__ import annotations

import numpy as np

from jaxvae.errors import InputError


def checked(scores: np.ndarray, labels: np.ndarray, name: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """(scores as `as_scores` returns them, labels of the same shape that hold both classes), or `InputError`."""
    scores, labels = as_scores(scores), as_bool(labels, name)
    if scores.shape != labels.shape:
        raise InputError(f"scores has shape {scores.shape} and {name} {labels.shape}; give two of one shape")
    anomalous = np.count_nonzero(labels)
    if anomalous in (0, labels.size):
        lacking = "anomalous (True)" if anomalous == 0 else "healthy (False)"
        raise InputError(
            f"{name} lacks a class: none of its {labels.size:,} entries is {lacking}; add images with some"
        )
    return scores, labels


def as_scores(scores: np.ndarray) -> np.ndarray:
    """The scores as float32 or float64, whichever holds all of their dtype; finite and not empty, or `InputError`."""
    scores = np.asarray(scores)
    dtype = next((dtype for dtype in (np.float32, np.float64) if np.can_cast(scores.dtype, dtype)), None)
    if dtype is None:
        raise InputError(f"scores has dtype {scores.dtype}; give real numbers of at most 64 bits")
    if scores.size == 0:
        raise InputError(f"scores is empty, of shape {scores.shape}; give at least one anomalous and one healthy pixel")
    scores = scores.astype(dtype, copy=False)
    # The extremes are NaN where anything is, and finding them needs no second array of this size.
    if not np.isfinite([scores.min(), scores.max()]).all():
        nans, infinite = np.count_nonzero(np.isnan(scores)), np.count_nonzero(np.isinf(scores))
        raise InputError(
            f"scores holds {nans:,} NaN and {infinite:,} infinite values among {scores.size:,}; repair what made them, "
            "or leave them out of scores and labels alike"
        )
    return scores


def as_bool(array: np.ndarray, name: str) -> np.ndarray:
    """The array itself if it is bool, else `InputError`: 0 and 255 would pass for an index unnoticed."""
    array = np.asarray(array)
    if array.dtype != bool:
        raise InputError(f"{name} has dtype {array.dtype}; give booleans, for example {name} > 0")
    return array
