"""Volumes measured from their prepared slices alone, at the model's resolution: their scans are not needed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxvae.data.dataset import Dataset
from jaxvae.data.volumes import cache, slices
from jaxvae.data.volumes.cache import Cache
from jaxvae.evaluation.volume_measures import VolumeMeasure, measure
from jaxvae.evaluation.volume_metrics import healthy_thresholds
from jaxvae.evaluation.volume_tables import Judging, Table, Thresholds, baselines, table
from jaxvae.runs.checkpoint import Run
from jaxvae.scoring.results import score_dataset


def slice_thresholds(run: Run, opened: Cache, validation: Dataset) -> Thresholds:
    """The thresholds that a share of the brain's voxels in healthy slices reach, baselines included.

    Args:
      opened: the volumes that the slices belong to.
      validation: slices without a lesion.
    """
    maps = score_dataset(run, validation, reconstructions=False, name="validation").maps
    return healthy_thresholds(measured(opened, validation, maps, {}, Judging()))


def table_of_slices(
    opened: Cache,
    test: Dataset,
    maps: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    judging: Judging,
    *,
    resamples: int = 1000,
) -> Table:
    """The table at the model's resolution, as `volume_tables.tables` makes it of scans.

    Args:
      opened: the volumes that the slices belong to.
      test: their slices.
      maps: [N, S, S, 1] each, in the order of `test`.
      thresholds: of `slice_thresholds`; without any, the table lacks their columns.
    """
    measures = measured(opened, test, maps, thresholds, judging)
    return table("model_resolution", judging, measures, thresholds, [], resamples)


def measured(
    opened: Cache, dataset: Dataset, maps: Mapping[str, np.ndarray], thresholds: Thresholds, judging: Judging
) -> list[VolumeMeasure]:
    """Measures of each volume that has slices in a data set, over the brain in those slices."""
    place = {name: i for i, name in enumerate(dataset.names)}
    measures = []
    for record in opened.volumes:
        numbered = enumerate(cache.slice_names(record), record["start"])
        pairs = np.array([(place[name], number) for number, name in numbered if name in place]).reshape(-1, 2)
        if not len(pairs):
            continue
        of, numbers = pairs.T
        brains = opened.brains[numbers]
        lesions = np.zeros_like(brains) if opened.masks is None else opened.masks[numbers]
        scored = {
            **baselines(slices.middle(opened.images[numbers]), brains),
            **{name: values[of] for name, values in maps.items()},
        }
        measures.append(
            measure(
                record["name"],
                record["patient"],
                {name: values[..., 0] for name, values in scored.items()},
                lesions[..., 0],
                brains[..., 0],
                thresholds,
                smallest_lesion=judging.smallest_lesion,
                head=cache.is_head(record),
            )
        )
    return measures
