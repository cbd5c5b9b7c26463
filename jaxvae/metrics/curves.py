"""ROC and precision-recall curves for plots: few points, all exact."""

from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.ranking import counts_at, sorted_by_class


class RocCurve(NamedTuple):
    """ROC curve, [K] each, from the strictest threshold (infinite) to the loosest."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray


class PrCurve(NamedTuple):
    """Precision-recall curve, [K] each, from the highest threshold to the lowest.

    Draw it as steps (`steps-pre`).
    """

    recall: np.ndarray
    precision: np.ndarray
    thresholds: np.ndarray


def roc_curve(scores: np.ndarray, labels: np.ndarray, *, points: int = 1000) -> RocCurve:
    """ROC curve at up to `points` thresholds, from (0, 0) to (1, 1).

    Thresholds are evenly spaced ranks of the anomalous and of the healthy pixels. Unless scores tie, neither rate
    changes by more than about 2 / points from one to the next. If there are fewer distinct scores, all are kept.

    Args:
      scores, labels: as for `jaxvae.metrics.auroc`.
      points: the most points to keep, 5 or more.

    Raises:
      InputError: as `jaxvae.metrics.auroc`, or too few points.

    >>> curve = roc_curve(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]))
    >>> curve.true_positive_rate
    array([0. , 0.5, 1. , 1. ])
    """
    thresholds, true_positives, false_positives = _sweep(scores, labels, points)
    return RocCurve(
        np.concatenate([[0.0], false_positives / false_positives[-1]]),
        np.concatenate([[0.0], true_positives / true_positives[-1]]),
        np.concatenate([[np.inf], thresholds]),
    )


def pr_curve(scores: np.ndarray, labels: np.ndarray, *, points: int = 1000) -> PrCurve:
    """Precision-recall curve at up to `points` thresholds, as `roc_curve`.

    The curve begins at the highest score, without an invented point at a recall of 0. It ends at a recall of 1, where
    the precision is the fraction of anomalous pixels.

    >>> pr_curve(np.array([0.1, 0.4, 0.8]), np.array([False, True, True])).precision.round(2)
    array([1.  , 1.  , 0.67])
    """
    thresholds, true_positives, false_positives = _sweep(scores, labels, points)
    precision = true_positives / (true_positives + false_positives)
    return PrCurve(true_positives / true_positives[-1], precision, thresholds)


def evenly_ranked(ascending: np.ndarray, count: int) -> np.ndarray:
    """`count` elements of a sorted array at evenly spaced ranks, with both ends."""
    ranks = np.linspace(0, ascending.size - 1, min(ascending.size, count))
    return ascending[np.round(ranks).astype(np.int64)]


def _sweep(scores: np.ndarray, labels: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thresholds descending, true positives, false positives), [K] each, at evenly spaced ranks of both classes."""
    if points < 5:
        raise InputError(f"points={points}: must be 5 or more")
    classes = sorted_by_class(scores, labels)
    thresholds = np.union1d(*classes)[::-1]
    if thresholds.size > points - 1:
        thresholds = np.union1d(*(evenly_ranked(ordered, (points - 1) // 2) for ordered in classes))[::-1]
    return thresholds, *counts_at(classes, thresholds)
