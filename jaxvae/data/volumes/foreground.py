"""The brain of a scan without a brain mask, found in the image."""

import numpy as np
import scipy  # which imports scipy.ndimage when it is used

GUESSED = "no brain mask, and not skull-stripped: the whole head was taken; pass `brains` for the brain alone"
HALO = "small values around the brain, an effect of interpolation, were left out"

LARGEST_BRAIN = 2.2e6  # cubic millimetres; heads have twice that
# Fractions of the brain's level, which is the median of the voxels clearly above the background.
NOTHING = 0.005  # Smaller values are noise, if many voxels have them.
SMALL = 0.1  # The values of a halo are smaller, except in one layer of voxels.
CLEAR = 0.5
# A halo has at least these fractions of the brain's voxels: below the background, or small.
HALO_BELOW = 0.01
HALO_SMALL = 0.05
SMALLEST_PART = 0.05  # fraction of the largest part of a brain
SAMPLE = 300_000  # voxels from which thresholds are chosen


def foreground(voxels: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, str | None]:
    """The brain of a skull-stripped scan, or the head in another scan.

    A skull-stripped scan has one value on nearly all faces of its volume: 0, or below 0 once normalised. Voxels with
    other values are the brain, unless they are more than a brain can be. Two kinds of voxels are excluded: noise below
    half a percent of the brain's level, and the halo of small values that spline and Lanczos interpolation leave. A
    brain with a halo ends where its values fall to half of the values nearby. In other scans Otsu's threshold
    separates the head from air.

    Holes are filled plane by plane, because dark ventricles belong to the brain. The largest connected part is kept,
    and for a brain the other large parts too. Empty planes do not separate parts. A scan with a single value is all
    brain.

    Args:
      voxels: [X, Y, Z] float32, finite.
      spacing: millimetres along x, y and z.

    Returns:
      ([X, Y, Z] bool; `GUESSED`, `HALO` or None).

    References: Otsu 1979.
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
    """(the difference of each voxel from the background, positive in the brain; the brain's level)."""
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
    """Whether small values of either sign surround the brain."""
    step = 1 + (signal.size > 10 * SAMPLE)  # Every second voxel is enough.
    signal = signal[::step, ::step, ::step]
    brain = _filled(signal > SMALL * level)
    around = signal[~brain & (np.abs(signal) > NOTHING * level)]
    size, small = np.count_nonzero(brain), np.count_nonzero(np.abs(around) < SMALL * level)
    much = small > HALO_SMALL * size or np.count_nonzero(around < 0) > HALO_BELOW * size
    return bool(much and small > around.size / 2)


def _without_halo(signal: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The brain without the outermost voxels below half the mean of the inner voxels nearby.

    An interpolated edge has half its height at the place of the original edge.
    """
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(brain))
    signal, found = signal[box], np.zeros_like(brain)
    inner = scipy.ndimage.binary_erosion(brain[box])
    near = scipy.ndimage.uniform_filter(inner.astype(np.float32), 5)
    total = scipy.ndimage.uniform_filter(np.where(inner, signal, 0), 5)
    # Voxels without an inner voxel nearby are kept; the filters round, so their mean is not exactly 0.
    found[box] = inner | (brain[box] & ((signal * near > total / 2) | (near < 1e-3)))
    return _solid(found, SMALLEST_PART)


def _sample(voxels: np.ndarray) -> np.ndarray:
    """[N]: voxels on a coarse grid."""
    step = max(1, round((voxels.size / SAMPLE) ** (1 / 3)))
    return voxels[::step, ::step, ::step].ravel()


def _otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold with the largest variance between the two classes it separates."""
    low, high = np.quantile(values, [0.001, 0.999])
    counts, edges = np.histogram(values, bins, (low, high) if high > low else None)
    if np.count_nonzero(counts) < 2:  # nearly all voxels have one value
        counts, edges = np.histogram(values, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * np.square(mass / below - (mass[-1] - mass) / above)
    return float(edges[1:][np.nanargmax(between[:-1])])


def _solid(inside: np.ndarray, smallest: float) -> np.ndarray:
    """The parts of at least `smallest` times the largest part, with holes filled in each axial plane."""
    found = np.zeros(inside.shape, bool)
    if not inside.any():
        return found
    planes = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(kept[0], kept[-1] + 1) for kept in planes)
    # Empty planes are left out, so that a lost plane does not cut the brain in two.
    labels, count = scipy.ndimage.label(inside[np.ix_(*planes)])
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        found[np.ix_(*planes)] = (sizes >= smallest * sizes.max())[labels]
    else:
        found[box] = inside[box]
    found[box] = _filled(found[box])
    return found


def _filled(inside: np.ndarray) -> np.ndarray:
    """A mask with the holes of each axial plane filled: the parts without a connection to the plane's edge."""
    outside = np.pad(~inside, ((1, 1), (1, 1), (0, 0)), constant_values=True)
    in_plane = scipy.ndimage.generate_binary_structure(3, 1)
    in_plane[1, 1, [0, 2]] = False
    labels, count = scipy.ndimage.label(outside, in_plane)
    reached = np.zeros(count + 1, bool)
    reached[labels[0, 0]] = True
    return ~reached[labels[1:-1, 1:-1]]
