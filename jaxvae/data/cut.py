"""A scan as a model sees it: read, its brain known or found, cut into slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxvae.data import slices, volumes
from jaxvae.data.foreground import foreground
from jaxvae.data.scans import Scan
from jaxvae.data.slices import Slices, Slicing
from jaxvae.data.volumes import Volume
from jaxvae.errors import InputError

FEW = 16  # values among those of a brain: masks and label maps of lesions have no more, scans hundreds
LIKE_A_MASK = f"has {FEW} values or fewer, as a mask does"


@dataclass(frozen=True)
class Cut:
    """A scan that was read and cut."""

    volume: Volume
    brain: np.ndarray  # [X, Y, Z] bool
    lesion: np.ndarray | None  # [X, Y, Z] bool
    slices: Slices
    is_head: bool  # Without a brain mask, of a scan that is not skull-stripped, `brain` is the whole head.
    warnings: tuple[str, ...]


def read_scan(scan: Scan, slicing: Slicing) -> Cut:
    """A scan as a model sees it; its brain is found where no mask of it is given.

    Raises:
      InputError: anything wrong with one of its files.
    """
    volume = volumes.read(scan.image)
    if scan.brain is not None:
        brain, guess = volumes.read_mask(scan.brain, volume), None
    else:
        brain, guess = foreground(volume.voxels, volume.spacing)
    lesion = None if scan.lesion is None else volumes.read_mask(scan.lesion, volume)
    try:
        cut = slices.cut(volume.voxels, brain, volume.spacing, slicing)
    except InputError as error:
        raise InputError(f"{scan.image}: {error}") from error
    warnings = [*volume.warnings, *([guess] if guess else [])]
    inside = volume.voxels[brain]
    if len(np.unique(inside[:: 1 + len(inside) // 4096])) <= FEW:  # A sample is enough, and takes a millisecond.
        warnings.append(LIKE_A_MASK)
    if cut.clipped > 0.02:
        warnings.append(f"clipping to {slicing.clip:g} changed {100 * cut.clipped:.0f} % of the brain")
    return Cut(volume, brain, lesion, cut, guess is not None, tuple(warnings))
