"""Tables of a run on volumes: on the scan's grid, and on the model's slices.

Only voxels inside the brain count, except in the table with the background. On the scan's own grid the whole brain
counts: maps are 0 in planes that were dropped, so a lesion there is missed. Thresholds come from healthy volumes that
the run was not trained on. Each table has thresholds from its own maps.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae import __version__
from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import cache, slices
from jaxvae.data.volumes.cache import Cache
from jaxvae.data.volumes.prepared_scan import PreparedScan
from jaxvae.data.volumes.scans import Rejected, Scan, sources
from jaxvae.errors import InputError
from jaxvae.evaluation import volume_measures
from jaxvae.evaluation.postprocessing import median
from jaxvae.evaluation.volume_measures import VolumeMeasure, measure
from jaxvae.evaluation.volume_metrics import Row, healthy_thresholds, rows
from jaxvae.metrics.baselines import equalised_brightness
from jaxvae.progress import Bar
from jaxvae.runs.run import Run
from jaxvae.scores import MAPS
from jaxvae.scoring.healthy_stats import Thresholds
from jaxvae.scoring.volume_scores import VolumeScores, score_scans, slicing_of


@dataclass(frozen=True)
class VolumeSettings:
    """How volumes are evaluated.

    Args:
      maps: names of `scores.known_maps`; the baselines are always included.
      median: edge of the median filter of the post-processed table, in voxels; 0 leaves that table out.
      components: predicted components of fewer voxels are removed in that table.
      smallest_lesion: lesions of fewer voxels are not counted as lesions.
      background: add a table of every voxel of the scan, as some papers do. Its many easy voxels raise an AUROC.
    """

    maps: tuple[str, ...] = MAPS
    median: int = 5
    components: int = 8
    smallest_lesion: int = 3
    background: bool = False


class VolumeTable(NamedTuple):
    """One table: its caption, its rows, and the thresholds of its columns.

    If no voxel of any lesion is left, as happens with small lesions at a model's resolution, the rows hold false
    positives only. Without thresholds there are no rows then.
    """

    name: str  # own_grid, post_processed, background (on the own grid too) or model_resolution
    caption: str
    prevalence: float  # the share of the counted voxels that are anomalous: the average precision of a random guess
    rows: list[Row]
    thresholds: Thresholds
    reference: str  # the volumes that the thresholds come from, in words


def make_tables(
    run: Run,
    test: Sequence[Scan],
    healthy: Sequence[Scan],
    settings: VolumeSettings,
    *,
    resamples: int = 1000,
    measures_dir: Path | None = None,
    slice_thresholds: Thresholds | None = None,
) -> list[VolumeTable]:
    """Every table of a run on volumes with known lesions.

    Args:
      test: volumes with lesion masks; those without a mask count as healthy.
      healthy: volumes that the thresholds come from, none of which the run was trained on. Volumes without a lesion are
        used if there are any, else the healthy voxels of the others. Without volumes and without `slice_thresholds`,
        the tables have no columns at thresholds.
      resamples: bootstrap resamples over patients.
      measures_dir: a folder for the measures of each volume, so that a call that was killed can be continued.
      slice_thresholds: of `thresholds.validation_thresholds`, used if `healthy` is empty: for the maps on the scan's
        own grid, and for everything at the model's resolution.
    Raises:
      InputError: a scan cannot be read.
    """
    references = {
        name: [one for one in measures if one.anomalous + one.outside == 0] or measures
        for name, measures in _measure_scans(run, healthy, settings, {}, "healthy volumes", measures_dir).items()
    }
    thresholds = {name: healthy_thresholds(measures) for name, measures in references.items()}
    if not healthy and slice_thresholds:
        # Baselines on the scan's own grid have not been averaged to the model's pixels.
        own_grid = {name: slice_thresholds[name] for name in settings.maps if name in slice_thresholds}
        thresholds = {"own_grid": own_grid, "model_resolution": slice_thresholds}
    measured = _measure_scans(run, test, settings, thresholds, "volumes", measures_dir)
    return [
        make_table(name, settings, measures, thresholds.get(name, {}), references.get(name, []), resamples)
        for name, measures in measured.items()
    ]


def make_table(
    name: str,
    settings: VolumeSettings,
    measures: Sequence[VolumeMeasure],
    thresholds: Thresholds,
    references: Sequence[VolumeMeasure],
    resamples: int,
) -> VolumeTable:
    """The table of measures that were taken with these thresholds.

    Args:
      references: the measures that the thresholds come from; empty if they come from the validation slices.
    """
    heads = sum(one.head for one in measures)
    inside, healthy, outside = (
        sum(getattr(one, kind) for one in measures) for kind in ("anomalous", "healthy", "outside")
    )
    prevalence = inside / (inside + healthy)
    caption = f"{_caption(name, settings, heads, len(measures))}; {100 * prevalence:.2g} % of it is anomalous"
    if outside:
        caption += f", and {outside:,} of {inside + outside:,} lesion voxels lie outside of it and do not count"
    if heads < len(measures) and any(one.head for one in references):
        caption += "; the thresholds come from whole heads, on which the run was trained"
    reference = f"of {len(references)} volume{'s' if len(references) != 1 else ''} set aside"
    if any(one.anomalous + one.outside for one in references):
        reference += ", outside their lesions"
    if not references:
        reference = "of the validation slices, at the model's resolution"
    if not inside and thresholds:
        caption += ", so only false positives can be counted"
    shown = rows(measures, resamples=resamples) if inside or thresholds else []
    return VolumeTable(name, caption, prevalence, shown, thresholds, reference)


def _caption(name: str, settings: VolumeSettings, heads: int, count: int) -> str:
    where = "At the model's resolution" if name == "model_resolution" else "On the scan's own grid"
    region = f"inside the brain{f' (in {heads} of {count} volumes the head)' if heads else ''}"
    if name == "background":
        region = "background included"
    elif heads == count:
        region = "inside the head (not skull-stripped, and without a brain mask)"
    if name == "post_processed":
        region += f", post-processed: median {settings.median}, components >= {settings.components}"
    return f"{where}, {region}"


def _measure_scans(
    run: Run,
    scans: Sequence[Scan],
    settings: VolumeSettings,
    thresholds: dict[str, Thresholds],
    name: str,
    measures_dir: Path | None,
) -> dict[str, list[VolumeMeasure]]:
    """The measures of all volumes for each table; only a few volumes are in memory at a time."""
    digests = [_digest(run, scan, settings, thresholds) for scan in scans]
    paths = [measures_dir / f"{digest}.npz" for digest in digests] if measures_dir else []
    measures = [volume_measures.read(path) for path in paths] or [{} for _ in scans]
    todo = [number for number, measured in enumerate(measures) if not measured]
    results = score_scans(run, [scans[number] for number in todo], maps=settings.maps, keep_voxels=True)
    progress = Bar(results, name, len(scans), initial=len(scans) - len(todo), unit="volume")
    for number, result in zip(todo, progress, strict=True):
        if isinstance(result, Rejected):
            raise InputError(result.reason)
        measures[number] = _measure_volume(run, result, settings, thresholds)
        if paths:
            volume_measures.write(paths[number], measures[number])
    return {table: [measured[table] for measured in measures] for table in measures[0]} if measures else {}


def _digest(run: Run, scan: Scan, settings: VolumeSettings, thresholds: dict[str, Thresholds]) -> str:
    """A hash of everything that decides the measures of a scan."""
    files = sources(scan, "image", "brain", "lesion")
    decisive = (__version__, run.config, run.step, scan, files, asdict(settings), thresholds)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _measure_volume(
    run: Run, volume: VolumeScores, settings: VolumeSettings, thresholds: dict[str, Thresholds]
) -> dict[str, VolumeMeasure]:
    """The measures of a volume for each table."""
    scan, cut, measures = volume.scan, volume.cut, {}

    def add(table: str, maps: dict[str, np.ndarray], lesion: np.ndarray, region: np.ndarray, smallest: int = 1) -> None:
        sizes = {"smallest_lesion": settings.smallest_lesion, "smallest_component": smallest}
        at = thresholds.get(table, {})
        measures[table] = measure(scan.name, scan.patient, maps, lesion, region, at, head=cut.is_head, **sizes)

    lesion = np.zeros(cut.brain.shape, bool) if cut.lesion is None else cut.lesion
    own = {**baseline_volumes(run, cut), **{name: volume.map(name) for name in settings.maps}}
    add("own_grid", own, lesion, cut.brain)
    if settings.median:
        smoothed = {name: median(values, settings.median) for name, values in own.items()}
        add("post_processed", smoothed, lesion, cut.brain, settings.components)
    if settings.background:
        add("background", own, lesion, np.ones_like(cut.brain))
    small = slices.resampled(lesion, cut.slices.placement, cut.slices.images.shape[1])
    baselines = baseline_slices(slices.middle(cut.slices.images), cut.slices.brains)
    maps = {**baselines, **{name: volume.scores.maps[name] for name in settings.maps}}
    planes = {name: values[..., 0] for name, values in maps.items()}
    add("model_resolution", planes, small[..., 0], cut.slices.brains[..., 0])
    return measures


def baseline_volumes(run: Run, cut: PreparedScan) -> dict[str, np.ndarray]:
    """The baselines on the scan's own grid, [X, Y, Z] each."""
    # Clipping prepares the scan for the model. It would remove the values that the baselines look for.
    slicing = replace(slicing_of(run), clip=None, percentiles=None)
    inside = slices.normalised(cut.volume.voxels[cut.brain], slicing)
    values = baseline_slices(inside[None, :, None, None], np.ones((1, len(inside), 1, 1), bool))
    volumes = {name: np.zeros(cut.brain.shape, np.float32) for name in values}
    for name, volume in volumes.items():
        volume[cut.brain] = values[name].ravel()
    return volumes


def baseline_slices(images: np.ndarray, brains: np.ndarray) -> dict[str, np.ndarray]:
    """The baselines of slices x: |x|, and the share of the brain up to x.

    Normalised x is 0 in the middle of the brain's values, so |x| finds dark lesions too; the share finds bright ones.
    At the model's resolution x is the model's input, clipped if its slices are.

    Args:
      images: [K, H, W, 1], ranked together.
      brains: [K, H, W, 1] bool.
    Returns:
      [K, H, W, 1] each, by the names of `scores.BASELINES`.
    """
    ranks = equalised_brightness(images.reshape(1, -1, 1, 1), brains.reshape(1, -1, 1))
    return {"brightness": np.abs(images) * brains, "equalised_brightness": ranks.reshape(images.shape)}


def measure_slices(
    opened: Cache, dataset: Dataset, maps: Mapping[str, np.ndarray], thresholds: Thresholds, settings: VolumeSettings
) -> list[VolumeMeasure]:
    """The measures of each volume in a data set, over the brain in its slices.

    Args:
      opened: the prepared volumes of the slices `dataset`.
      maps: [N, S, S, 1] each, in the order of `dataset`.
      thresholds: of `thresholds.validation_thresholds`; if empty, a table of these has no columns at thresholds.
    """
    row_of = {name: i for i, name in enumerate(dataset.names)}
    measures = []
    for record in opened.volumes:
        numbered = enumerate(cache.slice_names(record), record["start"])
        pairs = np.array([(row_of[name], number) for number, name in numbered if name in row_of]).reshape(-1, 2)
        if not len(pairs):
            continue
        chosen, numbers = pairs.T
        brains = opened.brains[numbers]
        lesions = np.zeros_like(brains) if opened.masks is None else opened.masks[numbers]
        baselines = baseline_slices(slices.middle(opened.images[numbers]), brains)
        planes = {name: values[..., 0] for name, values in baselines.items()}
        planes |= {name: values[chosen][..., 0] for name, values in maps.items()}
        found = planes, lesions[..., 0], brains[..., 0], thresholds
        sizes = {"smallest_lesion": settings.smallest_lesion}
        measures.append(measure(record["name"], record["patient"], *found, head=cache.is_head(record), **sizes))
    return measures
