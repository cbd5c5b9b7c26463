"""Maps of volumes without a model: what a threshold on the scan itself finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jaxvae.data.volumes import slices
from jaxvae.data.volumes.prepared_scan import PreparedScan
from jaxvae.metrics.baselines import equalised_brightness
from jaxvae.runs.run import Run
from jaxvae.scoring.volume_scores import slicing_of


def baseline_volumes(run: Run, cut: PreparedScan) -> dict[str, np.ndarray]:
    """The baselines on the scan's own grid, [X, Y, Z] each: the maps of `baseline_slices` for the whole brain."""
    # Clipping prepares the scan for the model. It would remove the values that the baselines look for.
    slicing = replace(slicing_of(run), clip=None, percentiles=None)
    inside = slices.normalised(cut.volume.voxels[cut.brain], slicing)
    values = baseline_slices(inside[None, :, None, None], np.ones((1, len(inside), 1, 1), bool))
    volumes = {name: np.zeros(cut.brain.shape, np.float32) for name in values}
    for name, volume in volumes.items():
        volume[cut.brain] = values[name].ravel()
    return volumes


def baseline_slices(images: np.ndarray, brains: np.ndarray) -> dict[str, np.ndarray]:
    """The baselines of slices x: |x|, and the share of the brain that is no brighter than x.

    Normalised x is 0 in the middle of the brain's values, so |x| finds dark lesions too; the rank finds bright ones.
    At the model's resolution x is the model's input, clipped if its slices are.

    Args:
      images: [K, H, W, 1], ranked together.
      brains: [K, H, W, 1] bool.
    Returns:
      [K, H, W, 1] each, by the names of `scores.BASELINES`.
    """
    ranks = equalised_brightness(images.reshape(1, -1, 1, 1), brains.reshape(1, -1, 1))
    return {"brightness": np.abs(images) * brains, "equalised_brightness": ranks.reshape(images.shape)}
