"""Where the brain is in a scan that comes without a mask of it."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

GUESSED = (
    "no brain mask, and the scan is not skull-stripped: the whole head was taken; give --brains for the brain alone"
)
HALO = "small values around the brain, as interpolation makes them, were left out"

LARGEST_BRAIN = 2.2e6  # cubic millimetres; heads have twice that
# Shares of the brain's level, the median of what is clearly above the background.
NOTHING = 0.005  # Less is no signal, if there is much of it.
SMALL = 0.1  # A halo is less, but for one layer of voxels.
CLEAR = 0.5
# Shares of the brain's number of voxels that a halo has at least: below the background, or small.
HALO_BELOW = 0.01
HALO_SMALL = 0.05
SMALLEST_PART = 0.05  # of the largest part of a brain
SAMPLE = 300_000  # voxels, to choose thresholds


def foreground(voxels: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, str | None]:
    """(the brain of a skull-stripped scan, or else the head, [X, Y, Z] bool; `GUESSED`, `HALO` or None).

    A skull-stripped scan has one value nearly everywhere along the edge of its volume, 0 or, once normalised, below 0.
    What differs from that value is brain, unless it is more than a brain can be. Two things are told from the brain:
    noise of less than a half percent of its level, and the halo of interpolation, for spline and Lanczos kernels leave
    small values of either sign around it. A brain with a halo ends where it falls to half of what it is nearby. In
    other scans Otsu's threshold tells head from air.

    Its holes are filled plane by plane, since dark ventricles belong to the brain. The largest connected part is kept;
    of a brain, other parts of some size too. Empty planes do not separate parts. A scan with one value throughout is
    all brain.

    Args:
      voxels: [X, Y, Z] float32, finite.
      spacing: millimetres along x, y and z.

    Reference: Otsu 1979.
    """
    if voxels.min() == voxels.max():
        return np.ones(voxels.shape, bool), None
    faces = np.concatenate([np.take(voxels, [0, -1], axis).ravel() for axis in range(3)])
    # If one value fills more than half of the faces, it is their median. A cropped brain may touch a face.
    background = np.partition(faces, faces.size // 2)[faces.size // 2]
    signal, level = _signal(voxels - background)
    sample = np.abs(_sample(signal))
    tiny = np.mean(sample[sample > 0] < NOTHING * level) > 0.05
    nothing = NOTHING * level if tiny else 0.0
    if np.mean(np.abs(faces - background) <= nothing) > 0.5:
        halo = _has_halo(signal, level)
        inside = _solid(signal > SMALL * level, SMALLEST_PART) if halo else np.abs(signal) > nothing
        if 0 < np.count_nonzero(inside) * np.prod(spacing) < LARGEST_BRAIN:
            return (_without_halo(signal, inside), HALO) if halo else (_solid(inside, SMALLEST_PART), None)
    return _solid(voxels > _otsu(_sample(voxels)), 1.0), GUESSED


def _signal(difference: np.ndarray) -> tuple[np.ndarray, float]:
    """(how far each voxel is from the background, above 0 in brains, below only where a brain is not; its level)."""
    sample = _sample(difference)
    if sample.mean() < 0:
        difference, sample = -difference, -sample
    level = _level(sample)
    if np.mean(sample < -CLEAR * level) > 0.1 * np.mean(sample > CLEAR * level):  # The brain lies on both sides.
        difference = np.abs(difference)
        level = _level(np.abs(sample))
    return difference, level


def _level(sample: np.ndarray) -> float:
    above = sample[sample > max(0.0, _otsu(sample))]
    return float(np.median(above)) if above.size else 0.0


def _has_halo(signal: np.ndarray, level: float) -> bool:
    """Whether small values of either sign lie around the brain."""
    step = 1 + (signal.size > 10 * SAMPLE)  # Every second voxel is enough.
    signal = signal[::step, ::step, ::step]
    brain = _filled(signal > SMALL * level)
    around = signal[~brain & (np.abs(signal) > NOTHING * level)]
    size, small = np.count_nonzero(brain), np.count_nonzero(np.abs(around) < SMALL * level)
    much = small > HALO_SMALL * size or np.count_nonzero(around < 0) > HALO_BELOW * size
    return bool(much and small > around.size / 2)


def _without_halo(signal: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The brain without those voxels of its outermost layer that have less than half the mean of the inner ones nearby.

    An edge that was interpolated is half-way up where it was sharp.
    """
    from scipy import ndimage

    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(brain))
    signal, found = signal[box], np.zeros_like(brain)
    inner: Any = ndimage.binary_erosion(brain[box])
    near: np.ndarray = ndimage.uniform_filter(inner.astype(np.float32), 5)
    total: np.ndarray = ndimage.uniform_filter(np.where(inner, signal, 0), 5)
    # Filters round: what has no inner voxel nearby is kept.
    found[box] = inner | (brain[box] & ((signal * near > total / 2) | (near < 1e-3)))
    return _solid(found, SMALLEST_PART)


def _sample(voxels: np.ndarray) -> np.ndarray:
    """[N]: voxels on a coarse grid."""
    step = max(1, round((voxels.size / SAMPLE) ** (1 / 3)))
    return voxels[::step, ::step, ::step].ravel()


def _otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold between the two classes that differ most, by the variance between them."""
    low, high = np.quantile(values, [0.001, 0.999])
    counts, edges = np.histogram(values, bins, (low, high) if high > low else None)
    if np.count_nonzero(counts) < 2:  # all but very few voxels are alike
        counts, edges = np.histogram(values, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * np.square(mass / below - (mass[-1] - mass) / above)
    return float(edges[1:][np.nanargmax(between[:-1])])


def _solid(inside: np.ndarray, smallest: float) -> np.ndarray:
    """The parts of at least `smallest` times the size of the largest, their holes filled in each axial plane."""
    from scipy import ndimage

    found = np.zeros(inside.shape, bool)
    if not inside.any():
        return found
    planes = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(kept[0], kept[-1] + 1) for kept in planes)
    # Without its empty planes: a plane that a scanner or a copy lost does not cut a brain in two.
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(inside[np.ix_(*planes)]))
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        found[np.ix_(*planes)] = (sizes >= smallest * sizes.max())[labels]
    else:
        found[box] = inside[box]
    found[box] = _filled(found[box])
    return found


def _filled(inside: np.ndarray) -> np.ndarray:
    """With the holes of each axial plane: what is not connected to the plane's edge through what is outside."""
    from scipy import ndimage

    outside = np.pad(~inside, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    in_plane: Any = ndimage.generate_binary_structure(3, 1)
    in_plane[1, 1, [0, 2]] = False
    labels, count = cast(tuple[np.ndarray, int], ndimage.label(outside, in_plane))
    reached = np.zeros(count + 1, bool)
    reached[labels[0, 0]] = True
    return ~reached[labels[1:-1, 1:-1]]
