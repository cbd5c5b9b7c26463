"""Bootstrap confidence intervals of metrics.

They are percentiles over resampled groups, which are patients or images. Pixels of one image are not independent, so
groups are drawn, with replacement and as many as there are. A resample without an anomalous or without a healthy pixel
has no metric and is drawn again. `bootstrap` and `bootstrap_pixels` draw the same groups for the same seed.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import checked
from jaxvae.metrics.curves import evenly_ranked
from jaxvae.metrics.histograms import histogram, histogram_auroc, histogram_average_precision, histogram_best_dice
from jaxvae.metrics.ranking import sorted_by_class

# Resamples of fewer groups take only a few values, and their interval means little.
FEWEST_GROUPS = 8


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class PixelIntervals(NamedTuple):
    """One interval per metric of `bootstrap_pixels`."""

    auroc: Interval
    average_precision: Interval
    best_dice: Interval


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float | tuple[float, float]],
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any metric of (scores, labels).

    Args:
      statistic: a function of (scores, labels), such as `auroc`, `best_dice` or `aupro`; if it returns a pair (value,
        threshold), the value is used.
      scores: [N, ...], one row per image (or one number per image).
      labels: bool, of the same shape.
      groups: N names of independent groups, such as patients.
      level: the fraction of resamples between the ends.
      seed: of the draw; the same seed gives the same interval.

    Raises:
      InputError: as `jaxvae.metrics.auroc`; groups that do not match, or fewer than two; resamples or level out of
        range.

    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, chapters 8 and 13.

    >>> from jaxvae.metrics import auroc
    >>> scores, labels = np.array([0.1, 0.2, 0.8, 0.3, 0.9, 0.4]), np.array([0, 0, 1, 1, 1, 0]) > 0
    >>> interval = bootstrap(auroc, scores, labels, groups=["a", "a", "b", "b", "c", "c"], resamples=200)
    >>> interval.low < auroc(scores, labels) <= interval.high
    True
    """
    scores, labels = checked(scores, labels)
    group_of, multiplicities = _resample(labels, groups, resamples, level, seed)
    draws = (np.repeat(np.arange(len(scores)), multiplicity[group_of]) for multiplicity in multiplicities)
    values = [np.ravel(statistic(scores[rows], labels[rows]))[0] for rows in draws]
    return percentile_interval(values, level)


def bootstrap_pixels(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> PixelIntervals:
    """`bootstrap` of AUROC, average precision and best Dice for many pixels.

    Every group becomes one histogram, and a resample is a weighted sum of histograms, so one matrix product serves all
    resamples. Bins lie between evenly spaced ranks of each class, 2^14 of each; scores that many pixels share have bins
    of their own. A resample's metric is that of the scores rounded to these bins: exact if no class has more than 2^14
    pixels, otherwise within the bounds of `histograms`. For 5 million pixels, the errors were below 1e-5 for AUROC and
    Dice and 2e-5 for the average precision. 1000 resamples take about 0.6 GB beside the scores.

    >>> scores, labels = np.array([[0.1, 0.8], [0.2, 0.5], [0.9, 0.4]]), np.array([[0, 1], [0, 1], [1, 0]]) > 0
    >>> bootstrap_pixels(scores, labels, groups=["a", "b", "c"], resamples=200).auroc
    Interval(low=1.0, high=1.0)
    """
    scores, labels = checked(scores, labels)
    group_of, multiplicities = _resample(labels, groups, resamples, level, seed)
    edges = _rank_edges(*sorted_by_class(scores, labels))
    by_group = np.argsort(group_of, kind="stable")
    members = np.split(by_group, np.cumsum(np.bincount(group_of))[:-1])

    def histograms(groups: range) -> np.ndarray:
        rows_of = (members[group] for group in groups)
        return np.array([histogram(scores[rows], labels[rows], edges) for rows in rows_of], dtype=np.float32)

    values = resampled_metrics(histograms, multiplicities)
    return PixelIntervals(*(percentile_interval(column, level) for column in values.T))


def resampled_metrics(histograms: Callable[[range], np.ndarray], multiplicities: np.ndarray) -> np.ndarray:
    """AUROC, average precision and best Dice of each resample, [S, 3].

    Args:
      histograms: returns the histograms of a range of groups, [g, 2, B] float32, healthy and anomalous pixels per bin.
      multiplicities: [S, G], how often each resample contains each group.
    """
    count, counts = multiplicities.shape[1], 0.0
    # 64 groups at a time, so that their histograms take far less memory than the counts.
    for groups in (range(start, min(start + 64, count)) for start in range(0, count, 64)):
        part = histograms(groups)
        counts = counts + multiplicities[:, groups].astype(np.float32) @ part.reshape(len(groups), -1)
    metrics = histogram_auroc, histogram_average_precision, histogram_best_dice
    return np.array([[metric(row.reshape(2, -1)).value for metric in metrics] for row in np.asarray(counts)])


def resample_groups(holds_anomalous: np.ndarray, holds_healthy: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """How often each resample contains each group, [resamples, G] int64.

    Every resample has a pixel of each class.

    Args:
      holds_anomalous, holds_healthy: [G] bool, which groups have such a pixel; True for at least one group each.

    >>> resample_groups(np.array([True, False]), np.array([False, True]), resamples=2, seed=0)
    array([[1, 1],
           [1, 1]])
    """
    generator = np.random.default_rng(seed)
    groups = holds_anomalous.size
    multiplicities = np.zeros((resamples, groups), dtype=np.int64)
    for multiplicity in multiplicities:
        while not (multiplicity[holds_anomalous].any() and multiplicity[holds_healthy].any()):
            multiplicity[:] = np.bincount(generator.integers(groups, size=groups), minlength=groups)
    return multiplicities


def percentile_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """The central interval that contains a fraction `level` of the values.

    >>> percentile_interval(np.arange(101.0), level=0.5)
    Interval(low=25.0, high=75.0)
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _resample(
    labels: np.ndarray, groups: Sequence[str] | np.ndarray, resamples: int, level: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(The number of each row's group [N], how often each resample contains each group [resamples, G])."""
    if resamples < 1:
        raise InputError(f"resamples={resamples}: must be 1 or more, such as 1000")
    if not 0 < level < 1:
        raise InputError(f"level={level}: must be between 0 and 1, such as 0.95")
    if np.ndim(groups) != 1 or len(groups) != len(labels):
        raise InputError(f"groups has shape {np.shape(groups)} for {len(labels)} rows of scores; give one name per row")
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if names.size < 2:
        raise InputError(f"groups names one group only, {names[0]}: an interval needs two or more")
    per_row = labels.reshape(len(labels), -1)
    holds = (np.bincount(group_of, weights=rows) > 0 for rows in (per_row.any(axis=1), ~per_row.all(axis=1)))
    return group_of, resample_groups(*holds, resamples=resamples, seed=seed)


def _rank_edges(positives: np.ndarray, negatives: np.ndarray, resolution: int = 1 << 14) -> np.ndarray:
    """Edges of bins that each contain one score, or at most about 1 / resolution of a class."""
    ranked = np.concatenate([evenly_ranked(positives, resolution), evenly_ranked(negatives, resolution)])
    edges, occurrences = np.unique(ranked, return_counts=True)
    # Many pixels share a score that occurs at several ranks; an edge just above it keeps its neighbours out of its bin.
    return np.union1d(edges, np.nextafter(edges[occurrences > 1], np.inf, dtype=edges.dtype))
