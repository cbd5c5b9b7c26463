"""thresholds.json: statistics of a run's healthy images.

With them, scoring does not need these images.

thresholds.json    {"step", "images", "thresholds", "ranges", "digests"}
  step             the checkpoint that the thresholds were computed with
  images           the fingerprint of the run's images (`kinds.fingerprint_of`)
  thresholds       {map: {"0.01": T, "0.05": T}}: the share of healthy validation pixels that reach T
  ranges           {"median": [lowest, highest], "spread": [lowest, highest]} of the training images
  digests          {map: DIGEST} for the maps of methods (`score_states.map_digest`); another digest, another threshold

`jaxvae.evaluation.thresholds` computes them when training ends. Runs of earlier versions have only the step and the
thresholds, or no file at all if they were trained on volumes.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import same_fingerprint
from jaxvae.data.kinds import fingerprint_of
from jaxvae.data.normalization import as_float
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.runs.run import Run
from jaxvae.runs.score_states import map_digest
from jaxvae.scores import SCORES

Thresholds = dict[str, dict[str, float]]  # by score, then by the share of healthy pixels that reach it
Ranges = dict[str, list[float]]  # "median" and "spread": the lowest and the highest of the training images

FILE = "thresholds.json"
FAR = "values far outside the range of the training images"
MOST_IMAGES = 4096  # training images whose quantiles are computed


class HealthyStats(NamedTuple):
    """Statistics of the healthy images of a run."""

    thresholds: Thresholds  # empty without validation images
    ranges: Ranges | None  # None in runs of earlier versions
    digests: Mapping[str, str] = MappingProxyType({})  # by map, see above


def write(run: Run, stats: HealthyStats) -> None:
    """Write thresholds.json of a run."""
    record = {**stats._asdict(), "digests": dict(stats.digests)}
    files.write_json(run.run_dir / FILE, {"step": run.step, "images": fingerprint_of(run.config), **record})


def read(run: Run) -> HealthyStats | None:
    """Read thresholds.json. None if it is missing, damaged or out of date."""
    try:
        record = files.read_json(run.run_dir / FILE, {"step": int, "thresholds": dict, "ranges?": dict | None})
        digests = {name: str(digest) for name, digest in record.get("digests", {}).items()}
        current = {name: it for name, it in record["thresholds"].items() if _is_current(run, name, digests)}
        stats = HealthyStats(current, record.get("ranges"), digests)
        numbers = [number for row in stats.thresholds.values() for number in (row["0.01"], *row.values())]
        if stats.ranges is not None:
            (low, high), (least, most) = stats.ranges["median"], stats.ranges["spread"]
            numbers += [low, high, least, most]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if record["step"] != run.step or not all(type(number) in (int, float) for number in numbers):
        return None
    return None if same_fingerprint(record.get("images"), fingerprint_of(run.config)) is False else stats


def _is_current(run: Run, name: str, digests: Mapping[str, str]) -> bool:
    """Whether a threshold belongs to the present state and code of a map's method."""
    return name not in SCORES or map_digest(run.run_dir, name) in (None, digests.get(name))


def intensity_ranges(images: np.ndarray) -> Ranges:
    """The ranges of the median and the spread over at most `MOST_IMAGES` images."""
    chosen = images[evenly_spaced(len(images), MOST_IMAGES)]
    quantiles = zip(("median", "spread"), _median_and_spread(chosen), strict=True)
    return {name: [float(values.min()), float(values.max())] for name, values in quantiles}


def outside_ranges(ranges: Ranges, images: np.ndarray) -> np.ndarray:
    """[N] bool: which images have values far outside the training range.

    Typical causes are 12 bits stored in 16, 0..255 stored as float, and inverted intensities. An image is far outside
    if its spread is below a third of the lowest or above three times the highest. It also is if its median lies outside
    the range of medians by more than the width of that range plus a quarter of the highest spread. An anomaly that
    fills less than a twentieth of an image changes neither.
    """
    medians, spreads = _median_and_spread(images)
    (low, high), (least, most) = ranges["median"], ranges["spread"]
    margin = high - low + most / 4
    return (spreads < least / 3) | (spreads > 3 * most) | (medians < low - margin) | (medians > high + margin)


def notice(count: int, total: int) -> str:
    """The line that says how many images are outside the training range."""
    return f"{count} of {total} images have {FAR}; check their bit depth, scale and window"


def _median_and_spread(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The median of each image, and its spread from the 5th to the 95th percentile; [N] float64 each."""
    quantiles = [np.quantile(as_float(image), [0.05, 0.5, 0.95]) for image in images]
    low, middle, high = np.array(quantiles, np.float64).reshape(-1, 3).T
    return middle, high - low
