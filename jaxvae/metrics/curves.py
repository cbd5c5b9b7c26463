"""ROC and precision-recall curves to draw: few points, each of them exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.ranking import sorted_by_class


class RocCurve(NamedTuple):
    """[K] each, from the strictest threshold to the loosest; the first is infinite, where nothing is predicted."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    thresholds: np.ndarray


class PrCurve(NamedTuple):
    """[K] each, from the strictest threshold, the highest score, to the loosest; draw it as steps (`steps-pre`)."""

    recall: np.ndarray
    precision: np.ndarray
    thresholds: np.ndarray


def roc_curve(scores: np.ndarray, labels: np.ndarray, *, points: int = 1000) -> RocCurve:
    """The ROC curve at no more than `points` thresholds, from (0, 0) to (1, 1).

    Thresholds are evenly spaced ranks of the anomalous and of the healthy pixels, so that wherever scores do not tie,
    neither rate moves by more than about 2 / points from one to the next. With fewer distinct scores than that, all are
    kept and the curve is the whole one.

    Args:
      scores: real numbers of any shape, higher is more anomalous.
      labels: bool, of the same shape, True where anomalous.
      points: how many to keep at most, 5 or more.
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
    """The precision-recall curve at no more than `points` thresholds, chosen as in `roc_curve`.

    No point is invented at a recall of 0: the curve begins at the highest score and ends at a recall of 1, where the
    precision is the share of anomalous pixels.

    Args, Raises: as `roc_curve`.

    >>> pr_curve(np.array([0.1, 0.4, 0.8]), np.array([False, True, True])).precision.round(2)
    array([1.  , 1.  , 0.67])
    """
    thresholds, true_positives, false_positives = _sweep(scores, labels, points)
    precision = true_positives / (true_positives + false_positives)
    return PrCurve(true_positives / true_positives[-1], precision, thresholds)


def evenly_ranked(ascending: np.ndarray, count: int) -> np.ndarray:
    """`count` elements at evenly spaced ranks of a sorted array, both ends among them; all, if it has no more.

    >>> evenly_ranked(np.array([1, 2, 3, 5, 8]), 3)
    array([1, 3, 8])
    """
    ranks = np.linspace(0, ascending.size - 1, min(ascending.size, count))
    return ascending[np.round(ranks).astype(np.int64)]


def _sweep(scores: np.ndarray, labels: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thresholds descending, true positives, false positives), [K] each, at evenly spaced ranks of both classes."""
    if points < 5:
        raise InputError(f"points={points} is too few for a curve; give 5 or more")
    classes = sorted_by_class(scores, labels)
    thresholds = np.union1d(*classes)[::-1]
    if thresholds.size > points - 1:
        thresholds = np.union1d(*(evenly_ranked(ordered, (points - 1) // 2) for ordered in classes))[::-1]
    true_positives, false_positives = (o.size - np.searchsorted(o, thresholds, "left") for o in classes)
    return thresholds, true_positives, false_positives
