"""Sufficient statistics of one volume, about 0.5 MB per score.

`volume_metrics` computes all tables from them. Only voxels inside a region count: the brain, or everything. Background
inflates an AUROC, so each table has to name its region.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.metrics import histograms
from jaxvae.metrics.checks import as_scores
from jaxvae.metrics.lesions import Detection, as_volume_mask, bounding_box, components, detect


class AtThreshold(NamedTuple):
    """Counts for `score >= threshold` in one volume: voxels and lesions."""

    threshold: float
    predicted: int
    true_positives: int
    detection: Detection


class ScoreMeasure(NamedTuple):
    """One score in one volume, as a histogram with K occupied bins.

    bins: [K] int32, ascending, of `histograms.float_bins`.
    counts: [2, K] int32, healthy and anomalous voxels.
    overlap: the sum over lesions of the lesion's share in the bin, for bins with anomalous voxels only.
    at: the counts at each named threshold.
    """

    bins: np.ndarray
    counts: np.ndarray
    overlap: np.ndarray
    at: dict[str, AtThreshold]


class VolumeMeasure(NamedTuple):
    """The measures of one volume."""

    name: str
    group: str  # the patient
    head: bool  # whether the region is a whole head, because the brain is unknown
    healthy: int  # voxels inside the region
    anomalous: int
    outside: int  # voxels of the lesion outside the region, which no metric counts
    scores: dict[str, ScoreMeasure]


def measure(
    name: str,
    group: str,
    maps: Mapping[str, np.ndarray],
    lesion: np.ndarray,
    region: np.ndarray,
    thresholds: Mapping[str, Mapping[str, float]],
    *,
    smallest_lesion: int = 1,
    smallest_component: int = 1,
    head: bool = False,
) -> VolumeMeasure:
    """Measure one volume.

    Args:
      group: the unit that the intervals resample, usually the patient.
      maps: [X, Y, Z] each, by score; higher is more anomalous, negative is fine; read inside the region only.
      lesion: [X, Y, Z] bool, True where anomalous; a healthy volume has none.
      region: [X, Y, Z] bool, the voxels that count.
      thresholds: named numbers for each score; `{}` if there are none yet.
      smallest_lesion: lesions of fewer voxels count for Dice and AUROC, but not as lesions (detection, AUPRO).
      smallest_component: predicted components of fewer voxels are removed before counting at thresholds.
    Raises:
      InputError: arrays of different shapes, an empty region, NaN or infinite values inside it.
    """
    lesion, region = as_volume_mask(lesion, "lesion"), as_volume_mask(region, "region")
    if lesion.shape != region.shape:
        raise InputError(f"{name}: lesion has shape {lesion.shape} and region {region.shape}; give two of one shape")
    if not region.any():
        raise InputError(f"{name}: region is empty; give the brain mask, or True everywhere")
    for score, scored in maps.items():
        if np.shape(scored) != region.shape:
            raise InputError(f"{name}: the map {score} has shape {np.shape(scored)} and region {region.shape}")
    box = bounding_box(region)
    inside = np.ascontiguousarray(region[box])
    marked = np.ascontiguousarray(lesion[box]) & inside
    found = components(marked, smallest=smallest_lesion)
    lesion_of = found.labels[marked]
    sizes = np.bincount(lesion_of, minlength=found.number + 1)
    shares = np.where(lesion_of > 0, 1 / sizes[lesion_of], 0.0)
    scores = {}
    for score, scored in maps.items():
        try:
            values = as_scores(np.asarray(scored)[box][inside].astype(np.float32))
        except InputError as error:
            raise InputError(f"{name}, {score}: {error}") from None
        at = {}
        for key, threshold in thresholds.get(score, {}).items():
            reached = np.zeros(inside.shape, dtype=bool)
            reached[inside] = values >= np.float32(threshold)
            clusters = components(reached, smallest=smallest_component)
            predicted = clusters.labels > 0
            voxels, hits = (int(np.count_nonzero(array)) for array in (predicted, predicted & marked))
            at[key] = AtThreshold(float(threshold), voxels, hits, detect(clusters, found, marked))
        scores[score] = _score_measure(values, marked[inside], shares, at)
    anomalous = int(np.count_nonzero(marked))
    healthy = int(np.count_nonzero(inside)) - anomalous
    return VolumeMeasure(name, group, head, healthy, anomalous, int(np.count_nonzero(lesion)) - anomalous, scores)


def _score_measure(
    values: np.ndarray, anomalous: np.ndarray, shares: np.ndarray, at: dict[str, AtThreshold]
) -> ScoreMeasure:
    """The histogram of float32 values [P], for `anomalous` [P] bool and each anomalous voxel's share of its lesion."""
    index = histograms.float_bins(values)
    lowest = int(index.min())
    index -= lowest
    of_anomalous = index[anomalous]
    everything = np.bincount(index)
    counted = np.bincount(of_anomalous, minlength=everything.size)
    overlap = np.bincount(of_anomalous, weights=shares, minlength=everything.size)
    occupied = np.flatnonzero(everything)
    counts = np.stack([everything - counted, counted])[:, occupied].astype(np.int32)
    return ScoreMeasure((occupied + lowest).astype(np.int32), counts, overlap[counted > 0], at)


def write(path: Path, measures: Mapping[str, VolumeMeasure]) -> None:
    """Write the measures of one volume, by table."""
    headers: dict[str, Any] = {}
    arrays = {}
    for name, measured in measures.items():
        headers[name] = measured._asdict() | {"scores": {score: one.at for score, one in measured.scores.items()}}
        for score, one in measured.scores.items():
            arrays |= {f"{name}/{score}/{part}": getattr(one, part) for part in ("bins", "counts", "overlap")}
    arrays["header"] = np.array(json.dumps(headers))
    with files.replacing(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def read(path: Path) -> dict[str, VolumeMeasure]:
    """Read the measures of one volume; empty if missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as content:
            arrays = dict(content)
        measures = {}
        for name, header in json.loads(str(arrays["header"])).items():
            scores = {}
            for score, at in header.pop("scores").items():
                bins, counts, overlap = (arrays[f"{name}/{score}/{part}"] for part in ("bins", "counts", "overlap"))
                counts_at = {key: AtThreshold(*one)._replace(detection=Detection(*one[-1])) for key, one in at.items()}
                scores[score] = ScoreMeasure(bins, counts, overlap, counts_at)
            measures[name] = VolumeMeasure(**header, scores=scores)
        return measures
    # zipfile, zlib and NumPy raise exceptions without a common class for damaged bytes.
    except Exception:
        return {}
