"""Metrics from histograms, for scores that do not fit into memory.

Histograms of several hosts are added to merge them. A histogram is [2, B] int64, healthy pixels per bin in row 0 and
anomalous pixels in row 1. A metric is that of the scores rounded to their bins. Its bounds hold for the scores
themselves, for any order inside the bins, ties included; a bin with pixels of one class does not widen them.
"""

from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import paired
from jaxvae.metrics.ranking import highest_dice

# A float32 without its last 12 bits has its sign, its exponent and 11 bits of its mantissa.
_DROPPED_BITS = 12


class Estimate(NamedTuple):
    """The metric of scores rounded to bins, and bounds of the exact metric."""

    value: float
    low: float
    high: float


def histogram(scores: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of healthy and anomalous pixels between `edges`; add two to merge.

    All scores count: the first bin is everything below the first edge, the last bin everything from the last edge up.

    Args:
      scores: real numbers of any shape, higher is more anomalous.
      labels: bool, of the same shape; one class is enough.
      edges: [B - 1], ascending; the same on every host. Bin i holds edges[i - 1] <= score < edges[i].

    Returns:
      [2, B] int64: healthy, anomalous.

    Raises:
      InputError: shapes that differ, empty arrays, NaN or infinite scores, edges that do not ascend.

    >>> edges = np.array([0.25, 0.5])
    >>> here = histogram(np.array([0.1, 0.3]), np.array([False, True]), edges)
    >>> there = histogram(np.array([0.2, 0.9]), np.array([False, True]), edges)
    >>> here + there
    array([[2, 0, 0],
           [0, 1, 1]])
    """
    scores, labels = (array.ravel() for array in paired(scores, labels))
    edges = np.asarray(edges)
    if edges.ndim != 1 or edges.size == 0 or not (edges[1:] > edges[:-1]).all():
        raise InputError(f"edges of shape {edges.shape}: must be one row of numbers, each above the one before")
    bins = edges.size + 1
    counts = np.zeros(2 * bins, dtype=np.int64)
    # Indices take eight bytes per pixel, so they are computed for one part at a time.
    for start in range(0, scores.size, 1 << 22):
        part = slice(start, start + (1 << 22))
        index = np.searchsorted(edges, scores[part], "right") + bins * labels[part]
        counts += np.bincount(index, minlength=2 * bins)
    return counts.reshape(2, bins)


def float_bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each score: the leading 20 bits of its float32.

    They are for histograms whose range is not known beforehand.

    Bins ascend with the scores, through 0 as well, and none is wider than 2^-11 of its scores. On brain volumes, the
    largest errors were 3e-7 for AUROC, 1e-4 for the average precision and 4e-5 for the best Dice. The lower edge of a
    bin is `float_edges` of it.

    Args:
      scores: float32 of any shape, finite.

    Returns:
      int32 of the same shape, from -2^19 to 2^19 - 1.

    >>> float_bins(np.array([-1.0, 0.0, 1.0, 1.0004, 1.0005], dtype=np.float32)) - (1 << 11) * 127
    array([-520193, -260096,       0,       0,       1], dtype=int32)
    """
    # Adding zero turns -0 into 0.
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0)).view(np.int32)
    return _ordered(bits) >> _DROPPED_BITS


def float_edges(bins: np.ndarray) -> np.ndarray:
    """The lower edge of each bin of `float_bins`.

    Bin i holds float_edges(i) <= score < float_edges(i + 1).

    >>> float_edges(float_bins(np.array([1.0004], dtype=np.float32)) + np.array([0, 1], dtype=np.int32)).tolist()
    [1.0, 1.00048828125]
    """
    return _ordered(np.asarray(bins, dtype=np.int32) << _DROPPED_BITS).view(np.float32)


def histogram_auroc(counts: np.ndarray) -> Estimate:
    """AUROC of binned scores, with bounds.

    The bounds are value -+ sum_i healthy_i anomalous_i / (2 healthy anomalous).

    Args:
      counts: [2, B], healthy and anomalous pixels per bin, bins ascending.

    Raises:
      InputError: counts of another shape, or a class that is missing.

    >>> histogram_auroc(np.array([[1, 1, 0], [0, 1, 1]]))
    Estimate(value=0.875, low=0.75, high=1.0)
    """
    healthy, anomalous = descending(counts)
    pairs = healthy.sum() * anomalous.sum()
    tied = np.sum(healthy * anomalous) / pairs
    below = np.sum(anomalous * (healthy.sum() - np.cumsum(healthy))) / pairs
    return Estimate(float(below + tied / 2), float(below), float(below + tied))


def histogram_average_precision(counts: np.ndarray) -> Estimate:
    """Average precision of binned scores; see `histogram_auroc`.

    At best, all anomalous pixels of a bin tie above its healthy ones. At worst, they follow one by one below them.

    >>> histogram_average_precision(np.array([[2, 0, 0], [0, 1, 1]])).value
    1.0
    """
    healthy, anomalous = descending(counts)
    true_positives, false_positives = np.cumsum(anomalous), np.cumsum(healthy)
    total = true_positives[-1]
    occupied = anomalous > 0
    here, found, false = anomalous[occupied], true_positives[occupied], false_positives[occupied]
    value = np.sum(here * found / (found + false)) / total
    high = np.sum(here * found / (found + false - healthy[occupied])) / total
    # The worst is here - false * sum_j 1 / (before + false + j) for j = 1..here, with `before` found in the bins above.
    # 1 / x is convex, so its integral from 1/2 to here + 1/2 is at least that sum.
    low = np.sum(here - false * np.log1p(here / (found - here + false + 0.5))) / total
    return Estimate(float(value), float(low), float(high))


def histogram_best_dice(counts: np.ndarray) -> Estimate:
    """The highest Dice of binned scores; see `histogram_auroc`.

    `value` is reached at an edge, so it is also the lower bound.

    >>> histogram_best_dice(np.array([[2, 1, 0], [0, 1, 1]]))
    Estimate(value=0.8, low=0.8, high=1.0)
    """
    healthy, anomalous = descending(counts)
    true_positives, false_positives = np.cumsum(anomalous), np.cumsum(healthy)
    value, _ = highest_dice(true_positives, false_positives)
    high, _ = highest_dice(true_positives, false_positives - healthy)
    return Estimate(value, value, high)


def _ordered(bits: np.ndarray) -> np.ndarray:
    """int32 that ascend with the float32 of these bits; the function is its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def descending(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(healthy, anomalous), float64, from the highest bin to the lowest.

    Both classes must be present.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or len(counts) != 2:
        raise InputError(f"counts has shape {counts.shape}: must be [2, bins], healthy and anomalous")
    healthy, anomalous = counts[:, ::-1].astype(np.float64)
    for name, row in (("healthy", healthy), ("anomalous", anomalous)):
        if not row.any():
            raise InputError(
                f"counts lacks a class: no {name} pixel in any of its {row.size} bins; add images with some"
            )
    return healthy, anomalous
