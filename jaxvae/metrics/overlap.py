"""Dice and intersection over union of two binary arrays."""

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_bool


def dice(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Dice of two bool arrays, 2 |A and B| / (|A| + |B|); 1 if both are empty.

    Raises:
      InputError: the shapes differ, or an array is not bool.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    both, total = _counts(predicted, labels)
    return 2 * both / total if total else 1.0


def iou(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Intersection over union, |A and B| / |A or B|; 1 if both are empty.

    >>> iou(np.array([True, True, False]), np.array([True, False, False]))
    0.5
    """
    both, total = _counts(predicted, labels)
    return both / (total - both) if total else 1.0


def _counts(predicted: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """(pixels in both arrays, the sum of the pixels in each)."""
    predicted, labels = as_bool(predicted, "predicted"), as_bool(labels, "labels")
    if predicted.shape != labels.shape:
        raise InputError(f"predicted has shape {predicted.shape} and labels {labels.shape}: must be of one shape")
    return int(np.sum(predicted & labels)), int(np.sum(predicted)) + int(np.sum(labels))
