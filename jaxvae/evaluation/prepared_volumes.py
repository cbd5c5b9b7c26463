"""Evaluation of prepared slices alone, at the model's resolution, without the scans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import cache, slices
from jaxvae.data.volumes.cache import Cache
from jaxvae.evaluation.volume_baselines import baseline_slices
from jaxvae.evaluation.volume_measures import VolumeMeasure, measure
from jaxvae.evaluation.volume_metrics import healthy_thresholds
from jaxvae.evaluation.volume_tables import VolumeSettings, VolumeTable, make_table
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import score_dataset
from jaxvae.scoring.healthy_stats import Thresholds


def slice_thresholds(run: Run, opened: Cache, validation: Dataset) -> Thresholds:
    """The thresholds that a share of the brain's voxels in healthy slices reach, baselines included.

    Args:
      opened: the prepared volumes of the slices.
      validation: slices without a lesion.
    """
    maps = score_dataset(run, validation, reconstructions=False, label="validation").maps
    return healthy_thresholds(measure_slices(opened, validation, maps, {}, VolumeSettings()))


def slice_table(
    opened: Cache,
    test: Dataset,
    maps: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    settings: VolumeSettings,
    *,
    resamples: int = 1000,
) -> VolumeTable:
    """The table at the model's resolution, as `volume_tables.make_tables` makes it from scans.

    Args:
      opened: the prepared volumes of the slices.
      test: the slices.
      maps: [N, S, S, 1] each, in the order of `test`.
      thresholds: of `slice_thresholds`; if empty, the table has no columns at thresholds.
    """
    measures = measure_slices(opened, test, maps, thresholds, settings)
    return make_table("model_resolution", settings, measures, thresholds, [], resamples)


def measure_slices(
    opened: Cache,
    dataset: Dataset,
    maps: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    settings: VolumeSettings,
) -> list[VolumeMeasure]:
    """The measures of each volume that has slices in a data set, over the brain in those slices."""
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
        all_maps = {
            **baseline_slices(slices.middle(opened.images[numbers]), brains),
            **{name: values[chosen] for name, values in maps.items()},
        }
        measures.append(
            measure(
                record["name"],
                record["patient"],
                {name: values[..., 0] for name, values in all_maps.items()},
                lesions[..., 0],
                brains[..., 0],
                thresholds,
                smallest_lesion=settings.smallest_lesion,
                head=cache.is_head(record),
            )
        )
    return measures
