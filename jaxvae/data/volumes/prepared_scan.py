"""A scan as a model sees it: read, its brain known or found, cut into slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxvae.data.volumes import slices, volume_files
from jaxvae.data.volumes.foreground import GUESSED, foreground
from jaxvae.data.volumes.scans import Scan
from jaxvae.data.volumes.slices import Slices, Slicing
from jaxvae.data.volumes.volume_files import Volume
from jaxvae.errors import InputError

FEW = 16  # values among those of a brain: masks and label maps of lesions have no more, scans hundreds
LIKE_A_MASK = f"has {FEW} values or fewer, as a mask does"


@dataclass(frozen=True)
class PreparedScan:
    """A scan that was read and cut."""

    volume: Volume
    brain: np.ndarray  # [X, Y, Z] bool
    lesion: np.ndarray | None  # [X, Y, Z] bool
    slices: Slices
    is_head: bool  # Without a brain mask, of a scan that is not skull-stripped, `brain` is the whole head.
    warnings: tuple[str, ...]


def read_scan(scan: Scan, slicing: Slicing) -> PreparedScan:
    """A scan as a model sees it; its brain is found where no mask of it is given.

    Raises:
      InputError: anything wrong with one of its files.
    """
    volume = volume_files.read(scan.image)
    warnings, guess, lesion = list(volume.warnings), None, None
    if scan.brain is None:
        brain, guess = foreground(volume.voxels, volume.spacing)
        warnings += [guess] if guess else []
    else:
        brain, notices = volume_files.mask_and_notices(scan.brain, volume, of_brain=True)
        warnings += [f"brain mask: {notice}" for notice in notices]
    if scan.lesion is not None:
        lesion, notices = volume_files.mask_and_notices(scan.lesion, volume)
        warnings += [f"lesion mask: {notice}" for notice in notices]
    if count := _empty_planes(brain):
        warnings.append(f"empty planes within the brain: {count}")
    try:
        cut = slices.cut(volume.voxels, brain, volume.spacing, slicing)
    except InputError as error:
        raise InputError(f"{scan.image}: {error}") from error
    inside = volume.voxels[brain]
    if len(np.unique(inside[:: 1 + len(inside) // 4096])) <= FEW:  # A sample is enough, and takes a millisecond.
        warnings.append(LIKE_A_MASK)
    if cut.clipped > 0.02:
        warnings.append(f"clipping to {slicing.clip:g} changed {100 * cut.clipped:.0f} % of the brain")
    return PreparedScan(volume, brain, lesion, cut, guess == GUESSED, tuple(warnings))


def _empty_planes(brain: np.ndarray) -> int:
    """How many axial planes between the first and the last of a brain have none of it."""
    planes = np.flatnonzero(brain.any(axis=(0, 1)))
    return int(planes[-1] - planes[0] + 1 - len(planes)) if len(planes) else 0
