"""Where the brain is in a scan that comes without a mask of it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

GUESSED = (
    "no brain mask, and the scan is not skull-stripped: the whole head was taken; give --brains for the brain alone"
)


LARGEST_BRAIN = 2.2e6  # cubic millimetres; heads have twice that


def foreground(voxels: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, str | None]:
    """(the brain of a skull-stripped scan, or else the head, [X, Y, Z] bool; a warning where it is the head).

    A skull-stripped scan has one value nearly everywhere along the edge of its volume, 0 or, once normalised, below 0;
    what differs from that value is brain, unless it is more than a brain can be. Elsewhere Otsu's threshold tells head
    from air. Of either, the largest connected part is kept and its holes are filled, plane by plane, for dark
    ventricles belong to the brain. Of a scan with one value throughout it is everything.

    Args:
      voxels: [X, Y, Z] float32, finite.
      spacing: millimetres along x, y and z.
    Reference: Otsu 1979.
    """
    if voxels.min() == voxels.max():
        return np.ones(voxels.shape, bool), None
    faces = np.concatenate([np.take(voxels, [0, -1], axis).ravel() for axis in range(3)])
    # What more than half of the numbers are is their median; a truncated brain may reach an edge of the volume.
    value = np.float32(np.sort(faces)[faces.size // 2])
    inside = voxels != value
    size = np.count_nonzero(inside) * np.prod(spacing)
    stripped = np.mean(faces == value) > 0.5 and 0 < size < LARGEST_BRAIN
    if not stripped:
        inside = voxels > _otsu(voxels)
    return _solid(inside), None if stripped else GUESSED


def _otsu(voxels: np.ndarray, bins: int = 256) -> float:
    """The threshold between the two classes that differ most, by the variance between them."""
    low, high = np.quantile(voxels[::2, ::2, ::2], [0.001, 0.999])
    counts, edges = np.histogram(voxels, bins, (low, high) if high > low else None)
    if np.count_nonzero(counts) < 2:  # all but very few voxels are alike
        counts, edges = np.histogram(voxels, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * np.square(mass / below - (mass[-1] - mass) / above)
    return float(edges[1:][np.nanargmax(between[:-1])])


def _solid(inside: np.ndarray) -> np.ndarray:
    """The largest 6-connected part, its holes filled in each axial plane."""
    from scipy import ndimage

    filled: Any = np.zeros(inside.shape, bool)
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(inside))
    if count > 1:
        inside = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    plane = ndimage.generate_binary_structure(2, 1)
    for z in range(inside.shape[2]):
        filled[..., z] = ndimage.binary_fill_holes(inside[..., z], plane)
    return filled
