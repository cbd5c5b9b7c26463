"""A run held against volumes: the same scores on the scan's own grid, post-processed, and at the model's resolution.

Only the brain counts, but in a table that says otherwise. On the scan's own grid all of it does: where planes were
dropped the maps are 0, and a lesion there is missed. Thresholds come from healthy volumes that the run did not learn
from, and for each table from that table's own maps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae import __version__
from jaxvae.data.dataset import Dataset, contents
from jaxvae.data.volumes import cache, slices
from jaxvae.data.volumes.prepared_scan import PreparedScan
from jaxvae.data.volumes.scans import Rejected, Scan, sources
from jaxvae.errors import InputError
from jaxvae.evaluation import volume_measures
from jaxvae.evaluation.postprocessing import median, remove_small, step
from jaxvae.evaluation.volume_measures import VolumeMeasure, measure
from jaxvae.evaluation.volume_metrics import Row, healthy_thresholds, rows
from jaxvae.metrics.baselines import equalised_brightness
from jaxvae.progress import Bar
from jaxvae.runs import trained_on
from jaxvae.runs.checkpoint import Run
from jaxvae.scores import MAPS
from jaxvae.scoring.volume_scores import VolumeScores, score_scans, slicing_of

Thresholds = dict[str, dict[str, float]]  # by score and by the share of healthy voxels above it
# What a table is of: the scan's own grid, that post-processed, that with its background, or the model's resolution.
NAMES = ("own_grid", "post_processed", "background", "model_resolution")


@dataclass(frozen=True)
class Judging:
    """How volumes are judged.

    Args:
      maps: which maps of `scores.MAPS`; the baselines are always there.
      median: edge of the cube of the post-processed table, in voxels; 0 leaves that table out.
      components: predicted components of fewer voxels are removed in that table.
      smallest_lesion: lesions of fewer voxels are not counted as lesions.
      background: one more table has every voxel of the scan, as some papers do; the many that nobody could take for a
        lesion raise an AUROC.
    """

    maps: tuple[str, ...] = MAPS
    median: int = 5
    components: int = 8
    smallest_lesion: int = 3
    background: bool = False


class Table(NamedTuple):
    """One table: its caption, its rows, and the thresholds of its columns.

    Where no voxel of any lesion is left, as of small ones at a model's resolution, rows hold false positives only, and
    without thresholds there are none.
    """

    name: str  # one of `NAMES`
    caption: str
    prevalence: float  # the share of the voxels that count that are anomalous: a guess has that average precision
    rows: list[Row]
    thresholds: Thresholds
    reference: str  # the volumes that the thresholds come from, in words


class _View(NamedTuple):
    """One volume as one table sees it."""

    name: str
    maps: dict[str, np.ndarray]
    lesion: np.ndarray
    region: np.ndarray
    smallest_component: int


def tables(
    run: Run,
    judged: Sequence[Scan],
    healthy: Sequence[Scan],
    judging: Judging,
    *,
    resamples: int = 1000,
    kept: Path | None = None,
    of_slices: Thresholds | None = None,
) -> list[Table]:
    """Every table of a run on volumes with known lesions.

    Args:
      judged: volumes with lesion masks; those without one count as healthy.
      healthy: volumes that the thresholds come from, none of which the run was trained on; those without a
        lesion where there are any, else what is healthy in the others. Without volumes, and without `of_slices`, the
        tables lack the columns of thresholds.
      resamples: of the bootstrap over patients.
      kept: a folder for what is measured of each volume, so that a call that was killed goes on when it is repeated.
      of_slices: thresholds of `prepared_volumes.slice_thresholds`, for where `healthy` is empty: they serve
        the maps on the scan's own grid and everything at the model's resolution.
    Raises:
      InputError: a scan that cannot be read.
    """
    references = {
        name: [one for one in measures if one.anomalous + one.outside == 0] or measures
        for name, measures in _measured(run, healthy, judging, {}, "healthy volumes", kept).items()
    }
    thresholds = {name: healthy_thresholds(measures) for name, measures in references.items()}
    if not healthy and of_slices:
        # Baselines at the scan's own grid have not been averaged to the model's pixels.
        of_maps = {name: of_slices[name] for name in judging.maps if name in of_slices}
        thresholds = {"own_grid": of_maps, "model_resolution": of_slices}
    measured = _measured(run, judged, judging, thresholds, "volumes", kept)
    return [
        table(name, judging, measures, thresholds.get(name, {}), references.get(name, []), resamples)
        for name, measures in measured.items()
    ]


def table(
    name: str,
    judging: Judging,
    measures: Sequence[VolumeMeasure],
    thresholds: Thresholds,
    references: Sequence[VolumeMeasure],
    resamples: int,
) -> Table:
    """The table of measures that were taken with these thresholds.

    Args:
      references: what the thresholds were measured on; none of them if it was the validation slices.
    """
    heads = sum(one.head for one in measures)
    inside, healthy, outside = (sum(getattr(one, of) for one in measures) for of in ("anomalous", "healthy", "outside"))
    prevalence = inside / (inside + healthy)
    caption = f"{_caption(name, judging, heads, len(measures))}; {100 * prevalence:.2g} % of it is anomalous"
    if outside:
        caption += f", and {outside:,} of {inside + outside:,} lesion voxels lie outside of it and do not count"
    if heads < len(measures) and any(one.head for one in references):
        caption += "; the thresholds come from whole heads, on which the run was trained"
    reference = f"of {len(references)} volume{'s' if len(references) != 1 else ''} set aside"
    if any(one.anomalous + one.outside for one in references):
        reference += ", which have lesions: these are left out"
    if not references:
        reference = "of the validation slices, at the model's resolution"
    if not inside and thresholds:
        caption += ", so only false positives can be counted"
    shown = rows(measures, resamples=resamples) if inside or thresholds else []
    return Table(name, caption, prevalence, shown, thresholds, reference)


def _caption(name: str, judging: Judging, heads: int, count: int) -> str:
    where = "At the model's resolution" if name == "model_resolution" else "On the scan's own grid"
    if name == "background":
        return f"{where}, background included"
    if heads == count:
        region = "inside the head (not skull-stripped, and without a brain mask)"
    else:
        region = f"inside the brain{f' (in {heads} of {count} volumes the head)' if heads else ''}"
    if name == "post_processed":
        steps = step(median, judging.median).name, step(remove_small, judging.components).name
        return f"{where}, {region}, post-processed: {', '.join(steps)}"
    return f"{where}, {region}"


def _measured(
    run: Run,
    scans: Sequence[Scan],
    judging: Judging,
    thresholds: dict[str, Thresholds],
    name: str,
    kept: Path | None,
) -> dict[str, list[VolumeMeasure]]:
    """For each table the measures of all volumes, of which a few are in memory at a time."""
    places = [kept / f"{_digest(run, scan, judging, thresholds)}.npz" if kept else None for scan in scans]
    found = [volume_measures.read(place) if place else {} for place in places]
    todo = [number for number, of_scan in enumerate(found) if not of_scan]
    results = score_scans(run, [scans[number] for number in todo], maps=judging.maps, keep_voxels=True)
    there = len(scans) - len(todo)
    progress = Bar(results, name, len(scans), initial=there, unit="volume")
    for number, result in zip(todo, progress, strict=True):
        if isinstance(result, Rejected):
            raise InputError(result.reason)
        found[number] = {
            view.name: measure(
                result.scan.name,
                result.scan.patient,
                view.maps,
                view.lesion,
                view.region,
                thresholds.get(view.name, {}),
                smallest_lesion=judging.smallest_lesion,
                smallest_component=view.smallest_component,
                head=result.cut.is_head,
            )
            for view in _views(run, result, judging)
        }
        if place := places[number]:
            volume_measures.write(place, found[number])
    return {view: [of_scan[view] for of_scan in found] for view in found[0]} if found else {}


def _digest(run: Run, scan: Scan, judging: Judging, thresholds: dict[str, Thresholds]) -> str:
    """The same for two measurings that give the same."""
    files = sources(scan, "image", "brain", "lesion")
    decisive = (__version__, run.config, run.step, scan, files, asdict(judging), thresholds)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _views(run: Run, scores: VolumeScores, judging: Judging) -> Iterator[_View]:
    cut = scores.cut
    lesion = np.zeros(cut.brain.shape, bool) if cut.lesion is None else cut.lesion
    own = {**baseline_volumes(run, cut), **{name: scores.volume(name) for name in judging.maps}}
    yield _View("own_grid", own, lesion, cut.brain, 1)
    if judging.median:
        smoothed = {name: median(scored, judging.median) for name, scored in own.items()}
        yield _View("post_processed", smoothed, lesion, cut.brain, judging.components)
    if judging.background:
        yield _View("background", own, lesion, np.ones_like(cut.brain), 1)
    small = slices.resampled(lesion, cut.slices.placement, cut.slices.images.shape[1])
    inside = cut.slices.brains[..., 0]
    maps = {
        **baselines(slices.middle(cut.slices.images), cut.slices.brains),
        **{name: scores.scores.maps[name] for name in judging.maps},
    }
    planes = {name: scored[..., 0] for name, scored in maps.items()}
    yield _View("model_resolution", planes, small[..., 0], inside, 1)


def baseline_volumes(run: Run, cut: PreparedScan) -> dict[str, np.ndarray]:
    """What a threshold on the scan itself gives, [X, Y, Z] each: the maps of `baselines` for the whole brain."""
    # Of the scan as it is: clipping is what the model is given, and would take from the baselines what they find.
    slicing = replace(slicing_of(run), clip=None, percentiles=None)
    inside = slices.normalised(cut.volume.voxels[cut.brain], slicing)
    values = baselines(inside[None, :, None, None], np.ones((1, len(inside), 1, 1), bool))
    volumes = {name: np.zeros(cut.brain.shape, np.float32) for name in values}
    for name, volume in volumes.items():
        volume[cut.brain] = values[name].ravel()
    return volumes


def baselines(images: np.ndarray, brains: np.ndarray) -> dict[str, np.ndarray]:
    """[K, H, W, 1] each, of slices taken together: |x|, and the share of the brain that is no brighter than x.

    Once normalised, x is 0 in the middle of the brain's values, so that |x| finds what is dark as well; the rank finds
    what is bright. At the model's resolution x is what the model was given, clipped where its slices are.
    """
    ranks = equalised_brightness(images.reshape(1, -1, 1, 1), brains.reshape(1, -1, 1))
    return {"brightness": np.abs(images) * brains, "equalised_brightness": ranks.reshape(images.shape)}


def other_volumes(run_directory: Path, run: Run, directory: Path) -> Dataset:
    """All slices of other prepared volumes, which have to be cut as the run's own were.

    Raises:
      InputError: they are not, the run was trained on one of them, or it was not trained on volumes.
    """
    wanted, opened = slicing_of(run), cache.open_cache(directory)
    if opened.slicing != wanted:
        raise InputError(
            f"{directory}: was prepared with {opened.slicing}, and what the run was trained on with {wanted}; "
            "prepare it with the same flags"
        )
    of_volumes = {record["image"]: contents(cache.images_of(opened, record)) for record in opened.volumes}
    trained_on.refuse(run_directory, of_volumes, directory)
    return cache.dataset(opened)


def to_config(found: Sequence[Table]) -> list[dict[str, Any]]:
    """As JSON values."""
    return [table._asdict() for table in found]
