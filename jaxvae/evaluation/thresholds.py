"""What a run keeps of its healthy images, so that it needs them no longer once it is trained.

thresholds.json    {"step", "images", "thresholds", "ranges"}
  step             of the weights that the thresholds were measured with
  images           what tells the images of the run from others (`runs.fingerprint_of`)
  thresholds       {map: {"0.01": T, "0.05": T}}: the share of healthy validation pixels that reach T
  ranges           {"median": [lowest, highest], "spread": [lowest, highest]} of the training images

It is written when training ends, as is trained_on.jsonl (`runs.trained_on`). Runs of earlier versions have the step
and the thresholds only, or nothing if they were trained on volumes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Dataset, Splits, same_fingerprint, take
from jaxvae.data.kinds import fingerprint_of
from jaxvae.data.normalization import as_float
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.evaluation import prepared_volumes
from jaxvae.evaluation.image_metrics import RATES
from jaxvae.metrics.ranking import healthy_threshold
from jaxvae.runs import trained_on
from jaxvae.runs.checkpoint import Run
from jaxvae.scores import MAPS
from jaxvae.scoring.results import score_dataset

Thresholds = dict[str, dict[str, float]]  # by score and by the share of healthy pixels above it

MAP_BYTES = 2**28  # Of maps that are held while thresholds are measured.
MOST_PIXELS = 2**26  # Of validation images, so that the end of a training takes no longer than a few of its epochs.
MOST_VOXELS = 2**24  # Of validation slices, of which all maps are in memory at once.
MOST_IMAGES = 4096  # Of training images whose quantiles are computed.


class Kept(NamedTuple):
    """What a run has of its healthy images."""

    thresholds: Thresholds  # none where there is no validation image
    ranges: dict[str, list[float]] | None  # of the training images; None in runs of earlier versions


def keep(run_directory: Path, run: Run, splits: Splits) -> Kept:
    """Measures what a run is to keep and writes it, unless it is there for the run's step and images.

    The work is bounded, and a call that was killed is simply repeated.

    Raises:
      InputError: the score of a validation image is NaN or infinite.
    """
    there = read(run_directory, run)
    if there is not None and there.ranges is not None and (run_directory / trained_on.FILE).is_file():
        return there
    found = Kept(healthy_thresholds(run, splits.validation), ranges_of(splits.train.images))
    with contextlib.suppress(InputError):  # A run that others share may not be written to.
        trained_on.write(run_directory, run, splits)
        record = {"step": run.step, "images": fingerprint_of(run.config), **found._asdict()}
        files.write_json(run_directory / "thresholds.json", record)
    return found


def read(run_directory: Path, run: Run) -> Kept | None:
    """What `keep` wrote for these weights and images; None if it is missing, damaged, or of others."""
    path = run_directory / "thresholds.json"
    try:
        record = files.read_json(path, {"step": int, "thresholds": dict, "ranges?": dict | None})
        kept = Kept(record["thresholds"], record.get("ranges"))
        numbers = [number for row in kept.thresholds.values() for number in (row["0.01"], *row.values())]
        if kept.ranges is not None:
            for low, high in (kept.ranges["median"], kept.ranges["spread"]):
                numbers += [low, high]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if record["step"] != run.step or not all(type(number) in (int, float) for number in numbers):
        return None
    return None if same_fingerprint(record.get("images"), fingerprint_of(run.config)) is False else kept


def of(run_directory: Path, run: Run, opened: Callable[[], Splits]) -> Kept:
    """What a run keeps; measured now for a run of an earlier version, from the images that `opened` reads.

    Raises:
      InputError: they cannot be read, and the run has not even thresholds.
    """
    there = read(run_directory, run)
    if there is not None and there.ranges is not None:
        return there
    try:
        return keep(run_directory, run, opened())
    except InputError:
        if there is None:
            raise
        return there


def healthy_thresholds(run: Run, validation: Dataset) -> Thresholds:
    """The thresholds that a share of healthy validation pixels reach, by map; no label is needed.

    For volumes: voxels of the validation slices, within the brain, at the model's resolution.
    """
    if len(validation) == 0:
        return {}
    height, width, _ = run.model.image_shape
    if run.config.get("volumes"):
        opened = cache.open_cache(run.config["data"]["data"])
        return prepared_volumes.slice_thresholds(run, opened, _evenly(validation, MOST_VOXELS // (height * width)))
    validation = _evenly(validation, MOST_PIXELS // (height * width))
    count, size = len(validation) * height * width, max(1, MAP_BYTES // (4 * len(MAPS) * height * width))
    # Of each map only what may lie above a threshold is kept, so that a large validation set needs little memory.
    kept = int(max(RATES) * count) + 2
    highest = {name: np.empty(0, np.float32) for name in MAPS}
    for start in range(0, len(validation), size):
        part = take(validation, np.arange(start, min(start + size, len(validation))))
        for name, values in score_dataset(run, part, reconstructions=False, name="validation").maps.items():
            pixels = np.concatenate([highest[name], values.ravel()])
            highest[name] = np.partition(pixels, max(0, pixels.size - kept))[-kept:]
    return {
        name: {f"{rate:g}": healthy_threshold(values, rate=rate, count=count) for rate in RATES}
        for name, values in highest.items()
    }


def _evenly(dataset: Dataset, most: int) -> Dataset:
    """At most so many images of a data set, at least one, evenly spaced."""
    most = max(1, most)
    return dataset if len(dataset) <= most else take(dataset, np.linspace(0, len(dataset) - 1, most).astype(int))


def ranges_of(images: np.ndarray) -> dict[str, list[float]]:
    """The lowest and the highest median, and spread, of up to `MOST_IMAGES` images [N, H, W, C]."""
    found = _quantiles(images[np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(int)])
    return {name: [float(of.min()), float(of.max())] for name, of in zip(("median", "spread"), found, strict=True)}


def unlike(ranges: dict[str, list[float]], images: np.ndarray) -> np.ndarray:
    """[N] bool: which images have values far outside the range of the training images, `ranges_of`.

    Images look like that where 12 bits are stored in 16, 0..255 as float, or black and white are exchanged. Their
    spread is below a third of the lowest or above three times the highest, or their median is outside of the range of
    medians by more than its width plus a quarter of the highest spread. Anomalies that fill less than a twentieth of an
    image change neither.
    """
    medians, spreads = _quantiles(images)
    (low, high), (least, most) = ranges["median"], ranges["spread"]
    margin = high - low + most / 4
    return (spreads < least / 3) | (spreads > 3 * most) | (medians < low - margin) | (medians > high + margin)


def notice(count: int, of: int) -> str:
    """The line that says how many images are `unlike`."""
    return (
        f"{count} of {of} images have values far outside the range of the training images; "
        "check their bit depth, scale and window"
    )


def _quantiles(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median, and the spread from the 5th to the 95th percentile, of each image; [N] float64 each."""
    found = np.empty((3, len(images)))
    for i, image in enumerate(images):
        found[:, i] = np.quantile(as_float(image), [0.05, 0.5, 0.95])
    return found[1], found[2] - found[0]
