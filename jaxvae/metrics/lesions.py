"""Lesion-wise detection in volumes: lesions found, and false components.

A lesion is a 26-connected component of a mask, so voxels that touch at a corner belong together. Masks are [X, Y, Z]
bool.
"""

from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_bool


class Components(NamedTuple):
    """The component of each voxel, [X, Y, Z] int32, from 1; 0 for none."""

    labels: np.ndarray
    number: int


class Detection(NamedTuple):
    """Counts of one volume: lesions, detected lesions and false components."""

    lesions: int
    detected: int
    false_positives: int


def components(mask: np.ndarray, *, smallest: int = 1) -> Components:
    """The 26-connected components of a mask, in the order of first voxels.

    Only the mask's bounding box is searched, which takes a few milliseconds for lesions.

    Args:
      smallest: components of fewer voxels are left out.

    Raises:
      InputError: an array that is not bool or not three-dimensional.

    >>> components(np.array([[[True, False, True, True]]]))
    Components(labels=array([[[1, 0, 2, 2]]], dtype=int32), number=2)
    >>> components(np.array([[[True, False, True, True]]]), smallest=2).labels
    array([[[0, 0, 1, 1]]], dtype=int32)
    """
    from scipy import ndimage

    mask = as_volume_mask(mask, "mask")
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    inside = mask[box]
    found = np.empty(inside.shape, dtype=np.int32)
    ndimage.label(inside, np.ones((3, 3, 3), dtype=bool), output=found)
    number = int(found.max(initial=0))
    if smallest > 1 and number:
        kept = np.bincount(found[inside], minlength=number + 1) >= smallest
        found = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[found]
        number = int(np.count_nonzero(kept))
    labels[box] = found
    return Components(labels, number)


def detect(predicted: Components, lesions: Components, mask: np.ndarray, *, overlap: float = 0.0) -> Detection:
    """Count the lesions of a mask that a prediction detects, and its false positives.

    A lesion is detected if predicted voxels cover at least a fraction `overlap` of it, and at least one voxel. A false
    positive is a predicted component that touches no voxel of the mask. One component can detect several lesions.

    Args:
      lesions: components of the mask that count as lesions: all, or only the larger ones.
      mask: [X, Y, Z] bool. A component that touches a lesion too small to count is not a false positive.
      overlap: the fraction of a lesion to cover, in [0, 1].

    Raises:
      InputError: a mask that is not bool, not three-dimensional or of another shape; an overlap outside [0, 1].

    >>> mask = np.array([[[True, False, False, False, False]]])
    >>> predicted = np.array([[[True, False, True, False, True]]])
    >>> detect(components(predicted), components(mask), mask)
    Detection(lesions=1, detected=1, false_positives=2)
    """
    mask = as_volume_mask(mask, "mask")
    if predicted.labels.shape != mask.shape:
        raise InputError(f"predicted has shape {predicted.labels.shape} and mask {mask.shape}: must be of one shape")
    if not 0 <= overlap <= 1:
        raise InputError(f"overlap={overlap}: must be from 0 to 1")
    component, lesion = predicted.labels[mask], lesions.labels[mask]
    sizes = np.bincount(lesion, minlength=lesions.number + 1)[1:]
    covered = np.bincount(lesion[component > 0], minlength=lesions.number + 1)[1:]
    detected = int(np.count_nonzero((covered > 0) & (covered / sizes >= overlap)))
    touching = np.unique(component[component > 0]).size
    return Detection(lesions.number, detected, predicted.number - touching)


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Slices of the smallest box around all True voxels; empty if there is none."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(side[0]), int(side[-1]) + 1) if side.size else slice(0, 0) for side in sides)
    return x, y, z


def as_volume_mask(mask: np.ndarray, name: str) -> np.ndarray:
    """The mask, which must be [X, Y, Z] bool."""
    mask = as_bool(mask, name)
    if mask.ndim != 3:
        raise InputError(f"{name} has shape {mask.shape}: must be one volume, [X, Y, Z]")
    return mask
