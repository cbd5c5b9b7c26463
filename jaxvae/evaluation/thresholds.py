"""Thresholds that 1 % or 5 % of healthy validation pixels reach.

They are computed when training ends and written to thresholds.json (`jaxvae.scoring.healthy_stats`), together with the
intensity range of the training images. With it and trained_on.jsonl (`jaxvae.runs.trained_on`), a finished run does not
need its own images any more.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset, Splits, take
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.evaluation import results
from jaxvae.evaluation.image_metrics import RATES
from jaxvae.evaluation.volume_metrics import healthy_thresholds
from jaxvae.evaluation.volume_tables import VolumeSettings, measure_slices
from jaxvae.metrics.ranking import healthy_threshold
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.runs import run_images, trained_on
from jaxvae.runs.fitting import fit_scores
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import score_dataset
from jaxvae.runs.score_states import map_digest
from jaxvae.scores import per_pixel
from jaxvae.scoring import healthy_stats
from jaxvae.scoring.healthy_stats import HealthyStats, Ranges, Thresholds, intensity_ranges

MAP_BYTES = 2**28  # maps in memory at a time
MOST_PIXELS = 2**26  # of validation images, so that the thresholds take no longer than a few epochs
MOST_VOXELS = 2**24  # of validation slices, whose maps are all in memory at once


def write_healthy_stats(run: Run, splits: Splits) -> HealthyStats:
    """Compute and write the statistics of the healthy images, if missing.

    The work is bounded. A call that was killed can be repeated.

    Raises:
      InputError: the score of a validation image is NaN or infinite.
    """
    with contextlib.suppress(InputError):  # A shared run may be read-only.
        trained_on.write(run, splits)  # Runs of earlier versions may lack it.
    stored = healthy_stats.read(run)
    if stored is not None and stored.ranges is not None:
        return stored
    stats = HealthyStats(validation_thresholds(run, splits.validation), intensity_ranges(splits.train.images))
    with contextlib.suppress(InputError):
        healthy_stats.write(run, stats)
    return stats


def read_healthy_stats(run: Run, own_images: Callable[[], Splits]) -> HealthyStats:
    """The statistics of the healthy images; computed for earlier versions.

    Args:
      own_images: reads the run's own images; only called if something is missing.
    Raises:
      InputError: the images cannot be read, and the run has no thresholds either.
    """
    stored = healthy_stats.read(run)
    if stored is not None and stored.ranges is not None:
        return stored
    try:
        return write_healthy_stats(run, own_images())
    except InputError:
        if stored is None:
            raise
        return stored


def with_maps(run: Run, stats: HealthyStats, maps: Sequence[str], own_images: Callable[[], Splits]) -> HealthyStats:
    """The statistics, with the thresholds of these maps too; they are kept in the run.

    Args:
      own_images: reads the run's own images; only called if a threshold is missing.

    Raises:
      InputError: the images cannot be read.
    """
    missing = [name for name in per_pixel(maps) if name not in stats.thresholds]
    if not missing or not stats.thresholds:
        return stats
    fit_scores(run, missing, own=own_images)
    found = validation_thresholds(run, own_images().validation, missing)
    digests = {name: digest for name in missing if (digest := map_digest(run.run_dir, name)) is not None}
    thresholds, digests = {**stats.thresholds, **found}, {**stats.digests, **digests}
    stats = stats._replace(thresholds=thresholds, digests=digests)
    with contextlib.suppress(InputError):
        healthy_stats.write(run, stats)
    return stats


def mask_threshold(run: Run, map_name: str) -> tuple[float | None, Ranges | None, str]:
    """The threshold of masks: 1 % of healthy validation pixels reach it.

    For volumes, an evaluation may have computed it on the scan's own grid. That threshold is preferred.

    Returns:
      The threshold, the intensity ranges of the training images, and why one of them is None.
    """
    stats, own = HealthyStats({}, None), lru_cache(lambda: run_images.open_own(run))
    problem = ""
    try:
        stats = read_healthy_stats(run, own)
        problem = f"the run has no threshold of {map_name}, and "
        stats = with_maps(run, stats, [map_name], own)
    except InputError as error:
        problem += str(error)
    else:
        problem = f"the run has no threshold of {map_name}" if stats.thresholds else "the run has no validation images"
    evaluated = results.evaluations(run) if run.kind is kinds.VOLUMES else ()
    tables = (table["thresholds"] for evaluation in evaluated for table in evaluation.get("volumes", [])[:1])
    found = (row[map_name]["0.01"] for row in chain(tables, [stats.thresholds]) if map_name in row)
    return next(found, None), stats.ranges, problem


def validation_thresholds(run: Run, validation: Dataset, maps: Sequence[str] | None = None) -> Thresholds:
    """For each map, the thresholds that a share of healthy pixels reach.

    For volumes, these are voxels of the validation slices inside the brain, at the model's resolution, and the
    baselines have thresholds too.
    """
    maps = run.maps if maps is None else maps
    if len(validation) == 0:
        return {}
    height, width, _ = run.model.image_shape
    if run.kind is kinds.VOLUMES:
        opened = cache.open_cache(run.config["data"]["data"])
        thinned = _thinned(validation, MOST_VOXELS // (height * width))
        found = score_dataset(run, thinned, maps=maps, reconstructions=False, label="validation").maps
        return healthy_thresholds(measure_slices(opened, thinned, found, {}, VolumeSettings()))
    validation = _thinned(validation, MOST_PIXELS // (height * width))
    count, size = len(validation) * height * width, max(1, MAP_BYTES // (4 * len(maps) * height * width))
    # Only pixels that may lie above a threshold are stored, so that a large validation set needs little memory.
    stored = int(max(RATES) * count) + 2
    highest = {name: np.empty(0, np.float32) for name in maps}
    for start in range(0, len(validation), size):
        part = take(validation, np.arange(start, min(start + size, len(validation))))
        found = score_dataset(run, part, maps=maps, reconstructions=False, label="validation").maps
        for name, values in found.items():
            pixels = np.concatenate([highest[name], values.ravel()])
            highest[name] = np.partition(pixels, max(0, pixels.size - stored))[-stored:]
    return {
        name: {f"{rate:g}": healthy_threshold(values, rate=rate, count=count) for rate in RATES}
        for name, values in highest.items()
    }


def _thinned(dataset: Dataset, most: int) -> Dataset:
    """At most `most` images of a data set, evenly spaced; at least one."""
    most = max(1, most)
    return dataset if len(dataset) <= most else take(dataset, evenly_spaced(len(dataset), most))
