"""Metrics of whole volumes, computed from the measures of each volume.

- Counts at thresholds are exact. The thresholds come from healthy volumes (`healthy_thresholds`).
- AUROC, average precision, best Dice and AUPRO use scores rounded to the bins of `histograms.float_bins`. A bin is
  2^-11 of the score wide.
- The threshold of the best Dice is chosen with the labels of the test volumes.
- Pooled metrics use all voxels of all volumes together. Mean metrics are means over the volumes with a lesion.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxvae.errors import InputError
from jaxvae.evaluation.image_metrics import RATES, Row
from jaxvae.evaluation.volume_measures import ScoreMeasure, VolumeMeasure
from jaxvae.metrics import histograms, region_overlap
from jaxvae.metrics.intervals import FEWEST_GROUPS, percentile_interval, resample_groups, resampled_metrics
from jaxvae.metrics.ranking import highest_dice
from jaxvae.progress import Bar
from jaxvae.scoring.healthy_stats import Thresholds

# Columns of the table for thresholds at `RATES`, with their headings.
COLUMNS = {
    "score": "score",
    "auroc": "AUROC",
    "average_precision": "AP",
    "best_dice": "best Dice",
    "mean_best_dice": "mean best Dice",
    "aupro": "AUPRO",
    **{
        f"{key}_at_healthy_{rate:g}": f"{head} at healthy {100 * rate:g}%"
        for rate in RATES
        for key, head in {
            "dice": "Dice",
            "mean_dice": "mean Dice",
            "sensitivity": "lesions found",
            "false_positives": "false positives/volume",
        }.items()
    },
    "volumes": "volumes",
}
# Which value of a column is best: the fewest false positives, the highest of everything else.
BEST = {key: min if key.startswith("false") else max for key in COLUMNS if key not in ("score", "volumes")}


def healthy_thresholds(measures: Sequence[VolumeMeasure], rates: Sequence[float] = RATES) -> Thresholds:
    """For each score, the thresholds that shares of healthy voxels reach.

    Voxels are pooled over volumes. A threshold is the lowest edge of a bin with at most that share at or above it. The
    share is exact. The lowest possible threshold with that share is at most 2^-11 of its size lower. If a map is 0
    nearly everywhere, the threshold is just above 0.

    Args:
      measures: healthy volumes; in others, only the voxels outside lesions are used.
      rates: shares in [0, 1).
    Returns:
      {score: {"0.01": threshold, ...}}, as `measure` takes it.
    Raises:
      InputError: no measures, measures of different scores, no healthy voxel, a share outside [0, 1).
    """
    if not all(0 <= rate < 1 for rate in rates):
        raise InputError(f"rates={tuple(rates)}: must be shares of healthy voxels, from 0 to less than 1, such as 0.05")
    thresholds = {}
    for score in _scores(measures):
        bins, counts, _ = _pooled([one.scores[score] for one in measures])
        above = np.cumsum(counts[0, ::-1])[::-1]
        if above[0] == 0:
            raise InputError(f"measures hold no healthy voxel of {score}; give volumes with some inside their region")
        # The last bin with too large a share at or above it must be below the threshold.
        last = [np.flatnonzero(above / above[0] > rate)[-1] for rate in rates]
        edges = histograms.float_edges(bins[last] + 1)
        thresholds[score] = {f"{rate:g}": float(edge) for rate, edge in zip(rates, edges, strict=True)}
    return thresholds


def rows(measures: Sequence[VolumeMeasure], *, resamples: int = 1000, seed: int = 0) -> list[Row]:
    """One row per score, over all volumes.

    Args:
      measures: all volumes, with the same scores and thresholds. Volumes without a lesion count in pooled metrics and
        for false positives, but have no Dice.
      resamples: bootstrap resamples over groups. With 0, or fewer than `FEWEST_GROUPS` groups, there are no intervals.
      seed: random seed of the resamples, which are the same for all scores.
    Returns:
      Rows with the keys of `COLUMNS` (for a threshold named t, those that end in `_at_healthy_t`) and
      `best_dice_threshold`. All metrics but AUPRO are (value, low, high) with the ends of their 95 % interval. A metric
      is None if it does not exist: the share of lesions found if all are too small to count; every metric that needs
      healthy and anomalous voxels if there is only one kind.
    Raises:
      InputError: no measures, or measures of different scores or thresholds.
    """
    names = _scores(measures)
    names_of_groups, group_of = np.unique([one.group for one in measures], return_inverse=True)
    anomalous, healthy = ([getattr(one, kind) for one in measures] for kind in ("anomalous", "healthy"))
    groups_with = [np.bincount(group_of, weights=voxels) > 0 for voxels in (anomalous, healthy)]
    draws = None
    if resamples and names_of_groups.size >= FEWEST_GROUPS and all(kind.any() for kind in groups_with):
        draws = resample_groups(*groups_with, resamples=resamples, seed=seed)
    return [
        {"score": score, **_row([one.scores[score] for one in measures], group_of, draws)}
        for score in Bar(names, "volume metrics", leave=False, unit="score")
    ]


def _scores(measures: Sequence[VolumeMeasure]) -> list[str]:
    """The names of the scores. Scores and thresholds must be the same in all volumes."""
    if not measures:
        raise InputError("measures is empty; give at least one volume")
    expected = {score: one.at.keys() for score, one in measures[0].scores.items()}
    for measured in measures[1:]:
        if {score: one.at.keys() for score, one in measured.scores.items()} != expected:
            problem = f"{measured.name} has other scores or thresholds than {measures[0].name}"
            raise InputError(f"{problem}; measure all volumes alike")
    return list(expected)


def _pooled(parts: Sequence[ScoreMeasure]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bins [K], counts [2, K] int64, overlap [K]) of all parts together."""
    bins = np.unique(np.concatenate([part.bins for part in parts]))
    counts, overlap = np.zeros((2, bins.size), dtype=np.int64), np.zeros(bins.size)
    for part in parts:
        places = np.searchsorted(bins, part.bins)
        counts[:, places] += part.counts
        overlap[places[part.counts[1] > 0]] += part.overlap
    return bins, counts, overlap


def _row(parts: Sequence[ScoreMeasure], group_of: np.ndarray, draws: np.ndarray | None) -> Row:
    """The metrics of one score, from its parts (one per volume), their group numbers and the resamples [S, G]."""
    bins, counts, overlap = _pooled(parts)
    anomalous = np.array([part.counts[1].sum() for part in parts])
    ill = anomalous > 0
    both = counts.any(axis=1).all()
    best_dice, threshold = _best_dice(bins, counts) if both else (None, None)
    estimates = histograms.histogram_auroc, histograms.histogram_average_precision
    values = [estimate(counts).value if both else None for estimate in estimates]
    row: Row = dict(zip(("auroc", "average_precision", "best_dice"), [*values, best_dice], strict=True))
    if draws is not None:
        resampled = _resampled(parts, bins, counts, group_of, draws)
        for key, column in zip(list(row), resampled.T, strict=True):
            row[key] = (row[key], *percentile_interval(column))
    own_best = [_best_dice(part.bins, part.counts)[0] if one else 0.0 for part, one in zip(parts, ill, strict=True)]
    row["mean_best_dice"] = _ratio(own_best, ill, group_of, draws)
    row["aupro"] = region_overlap.histogram_aupro(counts, overlap) if both and overlap.any() else None
    for key in parts[0].at:
        at = [part.at[key] for part in parts]
        twice_found = 2 * np.array([one.true_positives for one in at])
        sizes = np.array([one.predicted for one in at]) + anomalous
        own = np.divide(twice_found, sizes, out=np.zeros(len(at)), where=ill)
        found, marked, false = (
            [getattr(one.detection, count) for one in at] for count in ("detected", "lesions", "false_positives")
        )
        row[f"dice_at_healthy_{key}"] = _ratio(twice_found, sizes, group_of, draws)
        row[f"mean_dice_at_healthy_{key}"] = _ratio(own, ill, group_of, draws)
        row[f"sensitivity_at_healthy_{key}"] = _ratio(found, marked, group_of, draws)
        row[f"false_positives_at_healthy_{key}"] = _ratio(false, np.ones(len(at)), group_of, draws)
    return row | {"volumes": len(parts), "best_dice_threshold": threshold}


def _best_dice(bins: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(Dice, threshold): the highest Dice at the lower edge of a bin; of equal ones, the highest edge."""
    healthy, anomalous = np.cumsum(counts[:, ::-1], axis=1, dtype=np.int64)
    value, best = highest_dice(anomalous, healthy)
    return value, float(histograms.float_edges(bins[::-1][best]))


def _resampled(
    parts: Sequence[ScoreMeasure], bins: np.ndarray, counts: np.ndarray, group_of: np.ndarray, draws: np.ndarray
) -> np.ndarray:
    """AUROC, average precision and best Dice of each resample, [S, 3]; a resample is a weighted sum of histograms."""
    # Neighbouring bins are joined until they hold 2^-13 of a class. A bin that holds more is not joined. This leaves a
    # third of the float bins, and moves the ends of an interval by at most about 2e-5.
    ranks = np.floor(np.cumsum(counts, axis=1) * (1 << 13) / counts.sum(axis=1, keepdims=True))
    climbs = np.diff(ranks, axis=1, prepend=0)
    joined = np.concatenate([[0], np.cumsum((climbs[:, 1:] > 0).any(axis=0) | (climbs[:, :-1] > 1).any(axis=0))])

    def of_groups(groups: range) -> np.ndarray:
        group_counts = np.zeros((len(groups), 2, joined[-1] + 1), dtype=np.float32)
        for part, group in zip(parts, group_of, strict=True):
            if groups.start <= group < groups.stop:
                places = joined[np.searchsorted(bins, part.bins)]
                for row, of_class in zip(group_counts[group - groups.start], part.counts, strict=True):
                    row += np.bincount(places, weights=of_class, minlength=row.size)
        return group_counts

    return resampled_metrics(of_groups, draws)


def _ratio(
    above: Iterable[float], below: Iterable[float], group_of: np.ndarray, draws: np.ndarray | None
) -> float | tuple[float, float, float] | None:
    """sum(above) / sum(below) over volumes, with its interval if there are resamples; None for 0 / 0."""
    above, below = (np.bincount(group_of, weights=np.asarray(of, dtype=np.float64)) for of in (above, below))
    if not below.any():
        return None
    value = float(above.sum() / below.sum())
    if draws is None or not (resampled_below := draws @ below).any():
        return value
    defined = resampled_below > 0
    low, high = percentile_interval((draws @ above)[defined] / resampled_below[defined])
    return value, low, high
