"""Reading and preparing one scan: its volume, its brain and its slices.

The brain is read from a mask or found in the image.
"""

from dataclasses import dataclass

import numpy as np

from jaxvae.data.volumes import slices, volume_files
from jaxvae.data.volumes.foreground import GUESSED, foreground
from jaxvae.data.volumes.scans import Scan
from jaxvae.data.volumes.slices import Slices, Slicing
from jaxvae.data.volumes.volume_files import Volume
from jaxvae.errors import InputError

FEW = 16  # values in a brain: masks and label maps have no more, scans have hundreds
LIKE_A_MASK = f"has {FEW} values or fewer, as a mask does"


@dataclass(frozen=True)
class PreparedScan:
    """A scan as a model takes it."""

    volume: Volume  # the voxels in the scan's own unit
    brain: np.ndarray  # [X, Y, Z] bool
    lesion: np.ndarray | None  # [X, Y, Z] bool; None without a lesion mask
    slices: Slices
    is_head: bool  # `brain` is the whole head: the scan has no brain mask and is not skull-stripped
    warnings: tuple[str, ...]  # one line each, without the scan's name, which the caller adds when it prints them


def read_scan(scan: Scan, slicing: Slicing) -> PreparedScan:
    """Read and slice a scan. Without a brain mask, the brain is found in the image.

    Raises:
      InputError: one of its files is missing or damaged, or does not fit the others.
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
    planes = np.flatnonzero(brain.any(axis=(0, 1)))
    if len(planes) and (count := int(planes[-1] - planes[0] + 1 - len(planes))):
        warnings.append(f"empty planes within the brain: {count}")
    try:
        cut = slices.cut(volume.voxels, brain, volume.spacing, slicing)
    except InputError as error:
        raise InputError(f"{scan.image}: {error}") from error
    inside = volume.voxels[brain]
    if len(np.unique(inside[:: 1 + len(inside) // 4096])) <= FEW:  # A sample takes a millisecond and is enough.
        warnings.append(LIKE_A_MASK)
    if cut.clipped > 0.02:
        warnings.append(f"clipping to {slicing.clip:g} changed {100 * cut.clipped:.0f} % of the brain")
    return PreparedScan(volume, brain, lesion, cut, guess == GUESSED, tuple(warnings))
