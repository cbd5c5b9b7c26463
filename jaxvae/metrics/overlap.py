"""Overlap of two binary arrays."""

from __future__ import annotations

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_bool


def dice(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Dice of two binary arrays, 2 |A and B| / (|A| + |B|); 1 where both are empty, because they agree.

    Args:
      predicted, labels: bool, of the same shape.
    Raises:
      InputError: shapes that differ, or arrays that are not bool.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    both, predicted_size, labels_size = _overlap(predicted, labels)
    total = predicted_size + labels_size
    return 2 * both / total if total else 1.0


def iou(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Intersection over union of two binary arrays, |A and B| / |A or B|; 1 where both are empty, because they agree.

    Args, Raises: as `dice`.

    >>> iou(np.array([True, True, False]), np.array([True, False, False]))
    0.5
    """
    both, predicted_size, labels_size = _overlap(predicted, labels)
    either = predicted_size + labels_size - both
    return both / either if either else 1.0


def _overlap(predicted: np.ndarray, labels: np.ndarray) -> tuple[int, int, int]:
    """(pixels in both, in `predicted`, in `labels`)."""
    predicted, labels = as_bool(predicted, "predicted"), as_bool(labels, "labels")
    if predicted.shape != labels.shape:
        raise InputError(f"predicted has shape {predicted.shape} and labels {labels.shape}; give two of one shape")
    return int(np.sum(predicted & labels)), int(np.sum(predicted)), int(np.sum(labels))
