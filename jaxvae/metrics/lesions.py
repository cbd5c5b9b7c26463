"""Lesion-wise detection in volumes: how many lesions are found, and how many findings are none.

A lesion is a 26-connected component of a mask, so voxels that touch by a corner belong together. Masks are [X, Y, Z]
bool.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jaxvae.errors import InputError
from jaxvae.metrics.checks import as_bool


class Lesions(NamedTuple):
    """The component of each voxel, [X, Y, Z] int32, 0 where there is none and else from 1 to `number`."""

    labels: np.ndarray
    number: int


class Detection(NamedTuple):
    """Of one volume: its lesions, those that were found, and predicted components that touch no lesion."""

    lesions: int
    detected: int
    false_positives: int


class DetectionRates(NamedTuple):
    """Over volumes: the share of all lesions that is found, None without a lesion, and false positives a volume."""

    sensitivity: float | None
    false_positives: float


def lesions(mask: np.ndarray, *, smallest: int = 1) -> Lesions:
    """The 26-connected components of a mask, numbered in the order of their first voxels.

    Only the mask's bounding box is searched: 50 ms for a quarter of a million voxels all over a brain, few for lesions.

    Args:
      mask: [X, Y, Z] bool.
      smallest: components of fewer voxels than this are left out.
    Raises:
      InputError: an array that is not bool or not three-dimensional.

    >>> lesions(np.array([[[True, False, True, True]]]))
    Lesions(labels=array([[[1, 0, 2, 2]]], dtype=int32), number=2)
    >>> lesions(np.array([[[True, False, True, True]]]), smallest=2).labels
    array([[[0, 0, 1, 1]]], dtype=int32)
    """
    from scipy import ndimage

    mask = as_volume_mask(mask, "mask")
    labels = np.zeros(mask.shape, dtype=np.int32)
    box = bounding_box(mask)
    inside = mask[box]
    components = np.empty(inside.shape, dtype=np.int32)
    if inside.size:
        ndimage.label(inside, np.ones((3, 3, 3), dtype=bool), output=components)
    number = int(components.max(initial=0))
    if smallest > 1 and number:
        kept = np.bincount(components[inside], minlength=number + 1) >= smallest
        components = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[components]
        number = int(np.count_nonzero(kept))
    labels[box] = components
    return Lesions(labels, number)


def detection(predicted: np.ndarray, mask: np.ndarray, *, overlap: float = 0.0, smallest: int = 1) -> Detection:
    """What a prediction finds of the lesions of a mask.

    A lesion is detected when predicted voxels cover at least the share `overlap` of it, and one voxel in any case. A
    false positive is a predicted component that touches no voxel of the mask. One component may detect many lesions.

    Args:
      predicted, mask: [X, Y, Z] bool.
      overlap: the share of a lesion that has to be covered, in [0, 1]; 0 is satisfied with any voxel.
      smallest: lesions of fewer voxels do not count, neither as lesions nor, if predicted, as false positives.
    Raises:
      InputError: arrays that are not bool, not three-dimensional or not of one shape; an overlap outside [0, 1].

    >>> predicted = np.array([[[True, False, True, False, True]]])
    >>> detection(predicted, np.array([[[True, False, False, False, False]]]))
    Detection(lesions=1, detected=1, false_positives=2)
    """
    return match(lesions(predicted), lesions(mask, smallest=smallest), mask, overlap=overlap)


def match(predicted: Lesions, marked: Lesions, mask: np.ndarray, *, overlap: float = 0.0) -> Detection:
    """`detection` from components that are known already, so that many predictions need only one search of the mask.

    Args:
      predicted: components of the prediction.
      marked: components of the mask that count as lesions, all of them or the larger ones.
      mask: [X, Y, Z] bool.
      overlap: as for `detection`.
    Raises:
      InputError: as `detection`.
    """
    mask = as_volume_mask(mask, "mask")
    if predicted.labels.shape != mask.shape:
        raise InputError(f"predicted has shape {predicted.labels.shape} and mask {mask.shape}; give two of one shape")
    if not 0 <= overlap <= 1:
        raise InputError(f"overlap={overlap} is no share of a lesion; give a number from 0 to 1")
    component, lesion = predicted.labels[mask], marked.labels[mask]
    sizes = np.bincount(lesion, minlength=marked.number + 1)[1:]
    covered = np.bincount(lesion[component > 0], minlength=marked.number + 1)[1:]
    detected = int(np.count_nonzero((covered > 0) & (covered / sizes >= overlap)))
    touching = np.unique(component[component > 0]).size
    return Detection(marked.number, detected, predicted.number - touching)


def detection_rates(detections: Iterable[Detection]) -> DetectionRates:
    """Sensitivity over the lesions of all volumes together, and false positives per volume.

    Raises:
      InputError: no volume at all.

    >>> detection_rates([Detection(3, 1, 2), Detection(1, 1, 0), Detection(0, 0, 1)])
    DetectionRates(sensitivity=0.5, false_positives=1.0)
    """
    counts = np.array(list(detections), dtype=np.int64)
    if counts.size == 0:
        raise InputError("detections is empty; give those of at least one volume")
    total, detected, false_positives = counts.sum(axis=0).tolist()
    return DetectionRates(detected / total if total else None, false_positives / len(counts))


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Slices of the smallest box that holds every True voxel; empty slices if there is none.

    >>> bounding_box(np.array([[[False, True, True, False]]]))
    (slice(0, 1, None), slice(0, 1, None), slice(1, 3, None))
    """
    box = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        held = np.flatnonzero(mask.any(axis=axes))
        box.append(slice(int(held[0]), int(held[-1]) + 1) if held.size else slice(0, 0))
    return box[0], box[1], box[2]


def as_volume_mask(mask: np.ndarray, name: str) -> np.ndarray:
    """The mask itself if it is [X, Y, Z] bool, else `InputError`."""
    mask = as_bool(mask, name)
    if mask.ndim != 3:
        raise InputError(f"{name} has shape {mask.shape}; give one volume, [X, Y, Z]")
    return mask
