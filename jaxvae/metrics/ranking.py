"""AUROC, average precision, best Dice and rates at thresholds, exactly.

Scores are real numbers, higher is more anomalous. Labels are bool of the same shape, True where anomalous. All pixels
are pooled and count alike. To leave out the background, index both: `auroc(scores[brain], labels[brain])`.

Each class is sorted once, then the counts at a threshold are binary searches: 10^8 float32 pixels take seconds. Every
distinct score is a threshold, so there is no grid to choose. Counts are integers and ratios float64.
"""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_scores, checked


class PixelMetrics(NamedTuple):
    """Metrics from one sort per class; Dice and IoU are of `scores >= threshold`."""

    auroc: float
    average_precision: float
    best_dice: float
    best_dice_threshold: float
    dice_at_fpr: float
    iou_at_fpr: float
    fpr_at_tpr: float  # lower is better


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC: the chance that an anomalous pixel scores above a healthy one.

    (#{pairs won} + #{pairs tied} / 2) / #{pairs}, over all pairs of an anomalous and a healthy pixel.

    Args:
      scores: real numbers of any shape.
      labels: bool, of the same shape.

    Returns:
      A number in [0, 1]; 0.5 is chance.

    Raises:
      InputError: shapes that differ, empty arrays, NaN or infinite scores, or labels that lack a class.

    References:
      Hanley & McNeil 1982 (the area is the Mann-Whitney statistic).

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    return _auroc(*sorted_by_class(scores, labels))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision: the mean precision at the anomalous pixels' scores.

    sum_k (recall_k - recall_{k-1}) precision_k over the distinct scores from high to low, without interpolation.
    Arguments and errors as for `auroc`.

    Returns:
      A number in (0, 1]; chance is the fraction of anomalous pixels.

    >>> average_precision(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.8333333333333333
    """
    return _average_precision(*sorted_by_class(scores, labels))


def auroc_and_average_precision(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(`auroc`, `average_precision`) from one sort."""
    classes = sorted_by_class(scores, labels)
    return _auroc(*classes), _average_precision(*classes)


def best_dice(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(Dice, threshold): the highest Dice of any threshold, all pixels pooled.

    Dice = 2 TP / (2 TP + FP + FN) of the prediction `scores >= threshold`. The threshold is chosen on the labels that
    it is evaluated on. The value is an upper limit, not what to expect on new images: say so beside the number.
    Arguments and errors as for `auroc`.

    Returns:
      The value in (0, 1] and the threshold, which is one of the scores. If several are equal, the highest threshold.

    >>> best_dice(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True]))
    (0.8, 0.4)
    """
    return _best_dice(*sorted_by_class(scores, labels))


def pixel_metrics(scores: np.ndarray, labels: np.ndarray, *, fpr: float = 0.05, tpr: float = 0.95) -> PixelMetrics:
    """All metrics of `PixelMetrics` from one sort.

    Args:
      scores, labels: as for `auroc`.
      fpr: the fraction of healthy pixels that may be predicted anomalous, in [0, 1]. `dice_at_fpr` and `iou_at_fpr` are
        at the lowest threshold that keeps to it; both are 0 if even the highest score has too many false positives.
      tpr: the fraction of anomalous pixels to find, in (0, 1]. `fpr_at_tpr` is at the highest threshold that finds it.

    Raises:
      InputError: as `auroc`, or a rate out of range.

    >>> pixel_metrics(np.array([0.1, 0.6, 0.4, 0.8]), np.array([False, False, True, True])).dice_at_fpr
    0.6666666666666666
    """
    classes = sorted_by_class(scores, labels)
    overlap, sizes = _at_fpr(*classes, fpr)
    return PixelMetrics(
        _auroc(*classes),
        _average_precision(*classes),
        *_best_dice(*classes),
        2 * overlap / sizes,
        overlap / (sizes - overlap),
        _fpr_at_tpr(*classes, tpr),
    )


def healthy_threshold(scores: np.ndarray, *, rate: float = 0.05, count: int | None = None) -> float:
    """The lowest threshold that at most a share `rate` of healthy scores reach.

    Args:
      scores: of healthy pixels, of any shape; real numbers.
      rate: the fraction of them that may be `>= threshold`, in [0, 1).
      count: the number of healthy pixels, if `scores` has only the highest; at least rate * count + 1 are needed.

    Returns:
      The float32 number next above one of the scores, or float64 if they are. Convert 16-bit scores to float32 before
      you compare them with it.

    Raises:
      InputError: no scores, NaN or infinite ones, or a rate out of range.

    >>> scores = np.array([0, 0, 0, 0, 0, 0, 0, 1, 2, 3], np.float32)
    >>> [float((scores >= healthy_threshold(scores, rate=rate)).mean()) for rate in (0.2, 0.5)]
    [0.2, 0.3]
    >>> healthy_threshold(scores[-3:], rate=0.2, count=10) == healthy_threshold(scores, rate=0.2)
    True
    """
    if not 0 <= rate < 1:
        raise InputError(f"rate={rate}: must be at least 0 and below 1")
    scores = as_scores(scores).ravel()
    place = scores.size - 1 - _allowed(count or scores.size, rate)
    if place < 0:
        raise InputError(f"scores has {scores.size:,} of {count:,}: must have more than rate={rate} of them")
    with np.errstate(over="ignore"):  # The number above the largest float is infinity.
        return float(np.nextafter(np.partition(scores, place)[place], scores.dtype.type(np.inf)))


def sorted_by_class(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Anomalous scores, healthy scores), flat, ascending, not empty."""
    scores, labels = checked(scores, labels)
    return np.sort(scores[labels]), np.sort(scores[~labels])


def counts_at(classes: tuple[np.ndarray, np.ndarray], threshold: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """(True positives, false positives) at a threshold, from `sorted_by_class`."""
    positives, negatives = (ordered.size - np.searchsorted(ordered, threshold, "left") for ordered in classes)
    return positives, negatives


def highest_dice(true_positives: np.ndarray, false_positives: np.ndarray) -> tuple[float, int]:
    """(Dice, index): the highest Dice, and the first threshold that reaches it.

    Both counts are [K], from the strictest threshold to the loosest, which finds all anomalous pixels.
    """
    values = 2 * true_positives / (true_positives + false_positives + true_positives[-1])
    best = int(np.argmax(values))
    return float(values[best]), best


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    won = np.searchsorted(negatives, positives, "left").sum()
    won_or_tied = np.searchsorted(negatives, positives, "right").sum()
    # Python integers: the number of pairs can exceed 2^53, and the quotient of two integers is rounded once.
    return (int(won) + int(won_or_tied)) / (2 * positives.size * negatives.size)


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    _, true_positives, false_positives = _sweep(positives, negatives)
    at_this_score = -np.diff(true_positives, append=0)
    return float(np.sum(at_this_score * (true_positives / (true_positives + false_positives))) / positives.size)


def _best_dice(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    thresholds, true_positives, false_positives = (values[::-1] for values in _sweep(positives, negatives))
    value, best = highest_dice(true_positives, false_positives)
    return value, float(thresholds[best])


def _sweep(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Thresholds ascending, true positives, false positives), [K] each, at every distinct score of the anomalous."""
    # Other thresholds are not needed: between two of these, a lower threshold adds false positives only.
    first = np.flatnonzero(np.concatenate([[True], positives[1:] != positives[:-1]]))
    thresholds = positives[first]
    return thresholds, positives.size - first, negatives.size - np.searchsorted(negatives, thresholds, "left")


def _fpr_at_tpr(positives: np.ndarray, negatives: np.ndarray, tpr: float) -> float:
    if not 0 < tpr <= 1:
        raise InputError(f"tpr={tpr}: must be above 0 and at most 1")
    found = bisect_left(range(positives.size), tpr, key=lambda count: count / positives.size)
    return int(negatives.size - np.searchsorted(negatives, positives[-found], "left")) / negatives.size


def _at_fpr(positives: np.ndarray, negatives: np.ndarray, fpr: float) -> tuple[int, int]:
    """(True positives, predicted plus anomalous pixels) at the lowest threshold with a rate of at most `fpr`."""
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr={fpr}: must be from 0 to 1")
    classes, allowed = (positives, negatives), _allowed(negatives.size, fpr)
    # This healthy pixel must stay below the threshold, so the threshold is the next score above it.
    too_many = negatives[-1 - allowed] if allowed < negatives.size else -np.inf
    next_ones = [ordered[np.searchsorted(ordered, too_many, "right") :][:1] for ordered in classes]
    threshold = min(np.concatenate(next_ones), default=np.inf)
    true_positives, false_positives = map(int, counts_at(classes, threshold))
    return true_positives, true_positives + false_positives + positives.size


def _allowed(count: int, rate: float) -> int:
    """The largest n with n / count <= rate in floating point."""
    return bisect_right(range(count + 1), rate, key=lambda some: some / count) - 1
