"""Evaluation of a run: the metrics of its scores on labelled images or volumes."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset, Fingerprint, Splits, contents
from jaxvae.data.volumes import cache
from jaxvae.data.volumes.cache import Cache
from jaxvae.data.volumes.scans import Scan
from jaxvae.errors import ArgumentError, InputError, command
from jaxvae.evaluation import results, thresholds
from jaxvae.evaluation.image_metrics import false_positives, image_tables
from jaxvae.evaluation.volume_tables import VolumeSettings, VolumeTable, make_table, make_tables, measure_slices
from jaxvae.runs import run_images, score_names
from jaxvae.runs.fitting import fit_scores
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import check_shape, score_dataset, score_precision
from jaxvae.scores import of_whole_images, per_pixel
from jaxvae.scoring import healthy_stats, score_files
from jaxvae.scoring.healthy_stats import HealthyStats

Say = Callable[[str], None]


class LabelledImages(NamedTuple):
    """Images to test a run on."""

    dataset: Dataset
    place: str  # their folder, for messages
    volumes: Cache | None = None  # the prepared volumes that the images are slices of

    @property
    def fingerprint(self) -> Fingerprint:
        """A hash or `contents` of the images; recognises images that have moved."""
        if self.volumes is not None:
            return self.volumes.hash
        masks = self.dataset.masks
        return contents(self.dataset.images, *([] if masks is None else [masks]))


def evaluate(
    run: Run,
    dataset: Dataset | str | Path | None = None,
    *,
    maps: Sequence[str] | None = None,
    resamples: int = 1000,
    volumes: VolumeSettings = VolumeSettings(),  # noqa: B008
    save: bool = False,
    out: Path | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Compute the metrics of a run on labelled images: `jaxvae evaluate`.

    Args:
      dataset: labelled images; a folder of them, or of prepared volumes; None stands for the run's own test images.
      maps: names of `scores.known_maps`, of pixel scores and of image scores; those that need healthy images are fitted
        first. None: the run's `maps`.
      resamples: bootstrap resamples for the 95 % intervals; 0 leaves them out.
      volumes: for a run on volumes, which tables of volumes to make.
      save: write evaluation.json and the scores into `results.results_folder`. A stopped call can be continued then.
      out: the folder for them; None stands for the run, or for RUN/on/NAME if `dataset` is a folder.
      say: called with each line for the user.

    Returns:
      The content of evaluation.json. `pixels`, `samples` (whole images) and the `rows` of each table in `volumes` are
      lists of records, one per score. `thresholds` are the values that 1 % and 5 % of healthy pixels reach.
      `precision` is that of the products from which maps and image scores were computed.

    Raises:
      InputError: the images cannot be read or do not fit the run, the run was trained on one of them, the run does not
        have a score, or the folder holds the results of another test.
    """
    maps = run.maps if maps is None else tuple(maps)
    score_names.check_maps(run.model, run.objective, maps)
    in_memory = isinstance(dataset, Dataset)
    if in_memory and save:
        raise ArgumentError("save", save, "only goes with a folder of images")
    if in_memory and len(dataset) == 0:
        raise InputError("dataset: holds no image; give at least one")
    run, other = run_images.at_hand(run, None if in_memory or dataset is None else Path(dataset))
    own = lru_cache(lambda: run_images.open_own(run))
    if dataset is None:
        own()  # An error about the run's images comes first.
    images = LabelledImages(dataset, "dataset") if in_memory else load_labelled(run, other, own, say)
    check_shape(run, images.dataset.images, images.place)
    fit_scores(run, maps, own=own)
    stats = _healthy_stats(run, maps, own, say)
    volumes = replace(volumes, maps=per_pixel(maps))
    if not save:
        return _evaluate(run, images, maps, stats, own, resamples, volumes, None, say)
    folder = results.claim_results_folder(run, other, out, fingerprint := images.fingerprint)
    evaluation = _evaluate(run, images, maps, stats, own, resamples, volumes, folder, say)
    evaluation["tested_on"] = None if other is None else str(other.resolve())
    evaluation |= {"run": str(run.run_dir.resolve()), "contents": fingerprint}
    files.write_json(folder / results.FILE, evaluation)
    shutil.rmtree(folder / "measures", ignore_errors=True)
    return evaluation


def load_labelled(run: Run, other: Path | None, own: Callable[[], Splits], say: Say) -> LabelledImages:
    """Load the test images of a run, or all labelled images of another folder.

    Args:
      own: loads the run's own images.

    Raises:
      InputError: there is none, they cannot be read, or the run was trained on one of them.
    """
    if other is None:
        dataset, place = own().test, run.config["data"]["data"]
    else:
        (dataset, notices), place = run_images.open_other(run, other), str(other)
        for line in notices:
            say(f"{other}: {line}")
    if len(dataset) == 0:
        way_out = f"name others that have labels, {command('evaluate', run.run_dir, 'OTHER')}"
        raise InputError(f"{other or run.run_dir}: its data have no test images; {way_out}")
    return LabelledImages(dataset, place, cache.open_cache(place) if run.kind is kinds.VOLUMES else None)


def _healthy_stats(run: Run, maps: Sequence[str], own: Callable[[], Splits], say: Say) -> HealthyStats:
    """The statistics of the run's healthy images; empty, with a line that says why, if they are unavailable."""
    stats = HealthyStats({}, None)
    try:
        stats = thresholds.read_healthy_stats(run, own)
        return thresholds.with_maps(run, stats, maps, own)
    except InputError as error:
        missing = ", ".join(name for name in per_pixel(maps) if name not in stats.thresholds)
        say(f"no thresholds of healthy images for {missing}: {error}\n")
        return stats


def _evaluate(
    run: Run,
    images: LabelledImages,
    maps: Sequence[str],
    stats: HealthyStats,
    own: Callable[[], Splits],
    resamples: int,
    volumes: VolumeSettings,
    folder: Path | None,
    say: Say,
) -> dict[str, Any]:
    """All tables and thresholds; scores and measures go into the folder, if there is one."""
    test = images.dataset
    if stats.ranges and (far := healthy_stats.outside_ranges(stats.ranges, test.images).sum()):
        say(f"{images.place}: {healthy_stats.notice(far, len(test))}\n")
    needs_maps = images.volumes is not None or test.masks is not None or not test.labels.any()
    scores = score_dataset(run, test, maps=maps if needs_maps else of_whole_images(maps))
    evaluation = image_tables(run, test, scores, resamples=resamples)
    evaluation |= {"thresholds": stats.thresholds, "precision": score_precision(run)}
    if not test.labels.any():
        evaluation["false_positives"] = false_positives(scores, stats.thresholds)
    if folder is not None:
        score_files.write(folder / "scores", test, scores)
    tables: list[VolumeTable] = []
    if images.volumes is not None and (missing := cache.missing_files(images.volumes, test.groups)):
        say(f"{images.place}: {missing}; evaluated at the model's resolution, from the prepared slices\n")
        measures = measure_slices(images.volumes, test, scores.maps, stats.thresholds, volumes)
        tables = [make_table("model_resolution", volumes, measures, stats.thresholds, [], resamples)]
    elif images.volumes is not None:
        del scores  # Frees memory for the volumes.
        args = run, cache.scans(images.volumes, test.groups), _healthy_scans(run, own), volumes
        measures_dir, known = folder and folder / "measures", stats.thresholds
        tables = make_tables(*args, resamples=resamples, measures_dir=measures_dir, slice_thresholds=known)
    return evaluation | {"volumes": [table._asdict() for table in tables]}


def _healthy_scans(run: Run, own: Callable[[], Splits]) -> list[Scan]:
    """The scans of the run's own validation; empty if they, or the volumes prepared from them, are gone."""
    try:
        patients = own().validation.groups
    except InputError:
        return []
    volumes = cache.open_cache(run.config["data"]["data"])
    return [] if cache.missing_files(volumes, patients) else cache.scans(volumes, patients)
