"""How well scores tell anomalous pixels (or images) from healthy ones: exact numbers, NumPy on the host.

Scores are real numbers, higher is more anomalous; labels are bool and of the same shape, True where anomalous. Pixels
are pooled: all of them count alike, whichever image they come from. To leave the background out, index both first:
`auroc(scores[brain], labels[brain])`.

Everything rests on one sort of each class, after which the counts at a threshold are binary searches: 10^8 float32
pixels take seconds. Counts are integers, ratios float64, and there is no grid of thresholds to choose.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_scores, checked


class PixelMetrics(NamedTuple):
    """Every metric that rests on one sort of each class."""

    auroc: float
    average_precision: float
    best_dice: float
    best_dice_threshold: float
    dice_at_fpr: float
    iou_at_fpr: float
    fpr_at_tpr: float


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomalous pixel scores above a healthy one.

    (#{pairs won} + #{pairs tied} / 2) / #{pairs}, over all pairs of an anomalous and a healthy pixel.

    Args:
      scores: real numbers of any shape.
      labels: bool, of the same shape.
    Returns:
      A number in [0, 1]; 0.5 is chance.
    Raises:
      InputError: shapes that differ, nothing at all, NaN or infinite scores, or labels that lack a class.
    Reference: Hanley & McNeil 1982 (the area is the Mann-Whitney statistic).

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    return _auroc(*sorted_by_class(scores, labels))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision: the mean, over anomalous pixels, of the precision at their own score.

    sum_k (recall_k - recall_{k-1}) precision_k over the distinct scores from high to low; nothing is interpolated.

    Args, Raises: as `auroc`.
    Returns:
      A number in (0, 1]; chance is the share of anomalous pixels.

    >>> average_precision(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.8333333333333333
    """
    return _average_precision(*sorted_by_class(scores, labels))


def auroc_and_average_precision(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(`auroc`, `average_precision`) from one sort, in about half the time of the two calls."""
    positives, negatives = sorted_by_class(scores, labels)
    return _auroc(positives, negatives), _average_precision(positives, negatives)


def best_dice(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(Dice, threshold): the highest Dice that any threshold reaches, all pixels pooled, and where.

    Dice = 2 TP / (2 TP + FP + FN) of the prediction `scores >= threshold`. The threshold is chosen on the very labels
    it is judged by, so this is a ceiling and not what a method would do on new images; say so beside the number.

    Args, Raises: as `auroc`.
    Returns:
      The value in (0, 1] and the threshold, one of the scores; the highest such threshold where several are equal.

    >>> best_dice(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True]))
    (0.8, 0.4)
    """
    return _best_dice(*sorted_by_class(scores, labels))


def dice_at_fpr(scores: np.ndarray, labels: np.ndarray, *, fpr: float = 0.05) -> tuple[float, float]:
    """(Dice, threshold) at the lowest threshold whose false-positive rate does not exceed `fpr`.

    Args:
      scores, labels: as for `auroc`.
      fpr: the share of healthy pixels that may be called anomalous, in [0, 1].
    Returns:
      Dice = 2 TP / (2 TP + FP + FN) of `scores >= threshold`, and the threshold, one of the scores; infinite, with a
      Dice of 0, where even the highest score has too many false positives.
    Raises:
      InputError: as `auroc`, or a rate outside [0, 1].

    >>> dice_at_fpr(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True]), fpr=0.05)
    (0.6666666666666666, 0.8)
    """
    threshold, overlap, sizes = _at_fpr(*sorted_by_class(scores, labels), fpr)
    return 2 * overlap / sizes, threshold


def iou_at_fpr(scores: np.ndarray, labels: np.ndarray, *, fpr: float = 0.05) -> tuple[float, float]:
    """(intersection over union, threshold) at the lowest threshold whose false-positive rate does not exceed `fpr`.

    TP / (TP + FP + FN); arguments, threshold and errors are those of `dice_at_fpr`.
    """
    threshold, overlap, sizes = _at_fpr(*sorted_by_class(scores, labels), fpr)
    return overlap / (sizes - overlap), threshold


def fpr_at_tpr(scores: np.ndarray, labels: np.ndarray, *, tpr: float = 0.95) -> float:
    """The false-positive rate at the highest threshold that finds the share `tpr` of the anomalous pixels.

    Args:
      scores, labels: as for `auroc`.
      tpr: the share of anomalous pixels to be found, in (0, 1].
    Returns:
      A number in [0, 1]; lower is better.
    Raises:
      InputError: as `auroc`, or a rate outside (0, 1].

    >>> fpr_at_tpr(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True]), tpr=0.95)
    0.5
    """
    return _fpr_at_tpr(*sorted_by_class(scores, labels), tpr)


def pixel_metrics(scores: np.ndarray, labels: np.ndarray, *, fpr: float = 0.05, tpr: float = 0.95) -> PixelMetrics:
    """`auroc`, `average_precision`, `best_dice`, `dice_at_fpr`, `iou_at_fpr` and `fpr_at_tpr` from one sort.

    Args, Raises: as those.

    >>> pixel_metrics(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True])).dice_at_fpr
    0.6666666666666666
    """
    classes = sorted_by_class(scores, labels)
    _, overlap, sizes = _at_fpr(*classes, fpr)
    return PixelMetrics(
        _auroc(*classes),
        _average_precision(*classes),
        *_best_dice(*classes),
        2 * overlap / sizes,
        overlap / (sizes - overlap),
        _fpr_at_tpr(*classes, tpr),
    )


def healthy_threshold(scores: np.ndarray, *, rate: float = 0.05, count: int | None = None) -> float:
    """The lowest threshold that no more than a share of healthy scores reach: of a mask, where there are no labels.

    Args:
      scores: those of healthy pixels, of any shape; real numbers.
      rate: the share of them that may be `>= threshold`, from 0 up to, but not including, 1.
      count: how many there are, where `scores` has only the highest of them, at least one more than the share.
    Returns:
      The float32 number next above one of the scores, or float64 where they are; scores of 16 bits are to be widened
      before they are compared with it.
    Raises:
      InputError: no scores, NaN or infinite ones, or a rate out of range.

    >>> scores = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 3], np.float32)
    >>> [float((scores >= healthy_threshold(scores, rate=rate)).mean()) for rate in (0.2, 0.5)]
    [0.2, 0.3]
    >>> healthy_threshold(scores[-3:], rate=0.2, count=10) == healthy_threshold(scores, rate=0.2)
    True
    """
    if not 0 <= rate < 1:
        raise InputError(f"rate={rate} is no share of healthy pixels; give a number from 0 up to, not including, 1")
    if np.size(scores) == 0:
        raise InputError("scores is empty; give those of some healthy pixels")
    scores = as_scores(scores).ravel()
    place = scores.size - 1 - _allowed(count or scores.size, rate)
    if place < 0:
        raise InputError(f"scores has {scores.size:,} of {count:,}, no more than rate={rate} of them; give more")
    with np.errstate(over="ignore"):  # Above the largest number there is infinity.
        return float(np.nextafter(np.partition(scores, place)[place], scores.dtype.type(np.inf)))


def sorted_by_class(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the scores of anomalous pixels, those of healthy ones), each flat, ascending and not empty: checked.

    Args, Raises: as `auroc`.

    >>> sorted_by_class(np.array([0.8, 0.1, 0.4]), np.array([True, False, True]))
    (array([0.4, 0.8]), array([0.1]))
    """
    scores, labels = checked(scores, labels)
    return np.sort(scores[labels]), np.sort(scores[~labels])


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    won = np.searchsorted(negatives, positives, "left").sum()
    won_or_tied = np.searchsorted(negatives, positives, "right").sum()
    # Python's integers: the number of pairs may pass 2^53, and the quotient of two integers is rounded once.
    return (int(won) + int(won_or_tied)) / (2 * positives.size * negatives.size)


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    _, true_positives, false_positives = _sweep(positives, negatives)
    at_this_score = -np.diff(true_positives, append=0)
    return float(np.sum(at_this_score * (true_positives / (true_positives + false_positives))) / positives.size)


def _best_dice(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """(Dice, threshold)."""
    thresholds, true_positives, false_positives = _sweep(positives, negatives)
    values = 2 * true_positives / (true_positives + false_positives + positives.size)
    best = values.size - 1 - int(np.argmax(values[::-1]))
    return float(values[best]), float(thresholds[best])


def _sweep(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thresholds, true positives, false positives), [K] each, at every distinct score of an anomalous pixel.

    Ascending. No other threshold is needed: on the way down to the next of these, only false positives are added.
    """
    first = np.flatnonzero(np.concatenate([[True], positives[1:] != positives[:-1]]))
    thresholds = positives[first]
    return thresholds, positives.size - first, negatives.size - np.searchsorted(negatives, thresholds, "left")


def _fpr_at_tpr(positives: np.ndarray, negatives: np.ndarray, tpr: float) -> float:
    if not 0 < tpr <= 1:
        raise InputError(f"tpr={tpr} is no share of anomalous pixels to find; give a number above 0 and up to 1")
    found = bisect_left(range(positives.size), tpr, key=lambda count: count / positives.size)
    return int(negatives.size - np.searchsorted(negatives, positives[-found], "left")) / negatives.size


def _at_fpr(positives: np.ndarray, negatives: np.ndarray, fpr: float) -> tuple[float, int, int]:
    """(threshold, true positives, predicted plus anomalous pixels) at the lowest threshold that keeps to `fpr`."""
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr={fpr} is no false-positive rate; give a number from 0 to 1")
    classes, allowed = (positives, negatives), _allowed(negatives.size, fpr)
    if allowed == negatives.size:
        threshold = min(positives[0], negatives[0])
    else:
        # This healthy pixel must stay below the threshold, which is therefore the next score above it.
        too_many = negatives[-1 - allowed]
        next_ones = [ordered[np.searchsorted(ordered, too_many, "right") :][:1] for ordered in classes]
        threshold = min(np.concatenate(next_ones), default=np.inf)
    true_positives, false_positives = (
        int(ordered.size - np.searchsorted(ordered, threshold, "left")) for ordered in classes
    )
    return float(threshold), true_positives, true_positives + false_positives + positives.size


def _allowed(count: int, rate: float) -> int:
    """The most of `count` pixels that are no more than a share of them, as that share is rounded."""
    return bisect_right(range(count + 1), rate, key=lambda some: some / count) - 1
