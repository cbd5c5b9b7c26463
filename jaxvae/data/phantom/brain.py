"""The anatomy of the phantom: axial slices of T2-weighted brains.

Arrays are [N, P]: N slices, P pixels each. Coordinates are normalised: p to the side, q to the front, the brain is the
unit disc, and lengths are fractions of its radius. Tissue is drawn from distances to curves: cerebrospinal fluid (CSF)
near a sulcus, grey matter in a ribbon around it, white matter beyond. The constants were chosen by eye against T2 scans
of adults, between the basal ganglia and the centrum semiovale.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr


class Subjects(NamedTuple):
    """The parameters of N slices: normal numbers, except `level` and `age`."""

    level: np.ndarray  # [N, 1] in 0..1, from the basal ganglia up to the centrum semiovale
    age: np.ndarray  # [N, 1] in 0..1, widens ventricles and sulci together
    pose: np.ndarray  # rotation, shift to the right and to the front, size, aspect
    warp: np.ndarray  # amplitudes of a smooth deformation
    wrinkle: np.ndarray  # phases of the waves that bend the sulci
    ventricles: np.ndarray  # size, asymmetry, and shift to the front
    lateral: np.ndarray  # the sulci on the outer surface
    medial: np.ndarray  # the sulci on the inner surface
    contrast: np.ndarray  # brightness of white matter, grey matter and CSF
    bias: np.ndarray  # amplitudes of the bias field


# Sulci of one half from the front to the back, on the outer surface and on the one that faces the other half: slope,
# depth, half-length of the branch at the bottom, tilt of that branch, and width relative to the subject's.
_LATERAL = (
    (0.07, 0.15, 0.02, 0.5, 0.5),
    (-0.10, 0.25, 0.07, -0.6, 1.2),
    (0.17, 0.19, 0.03, 0.4, 0.6),
    (-0.14, 0.27, 0.09, 0.7, 1.0),
    (0.10, 0.30, 0.06, 0.1, 1.2),
    (0.18, 0.20, 0.03, -0.7, 0.6),
    (-0.17, 0.31, 0.08, 0.5, 1.3),
    (0.10, 0.21, 0.04, -0.4, 0.7),
    (-0.14, 0.28, 0.08, 0.6, 1.1),
    (0.14, 0.19, 0.02, -0.5, 0.6),
    (-0.10, 0.26, 0.07, 0.4, 1.2),
    (0.07, 0.15, 0.02, 0.5, 0.5),
)
_MEDIAL = (
    (0.18, 0.16, 0.06, 0.5, 0.3),
    (-0.24, 0.22, 0.03, -0.6, 0.8),
    (-0.12, 0.14, 0.04, 0.2, 0.3),
    (0.10, 0.18, 0.03, 0.4, 0.6),
    (0.24, 0.24, 0.03, 0.6, 1.0),
    (-0.18, 0.17, 0.05, -0.5, 0.6),
)
# The effect of one standard deviation on a sulcus: its position in cells, then the columns of the tables above.
_SPREAD = np.array([0.10, 0.05, 0.025, 0.01, 0.10, 0.12], dtype=np.float32)
_SYLVIAN = 4

# Deep grey nuclei of one half: centre (p, q), half-axes, tilt, brightness, and the level at which they vanish.
_NUCLEI = (
    (0.34, 0.02, 0.09, 0.14, -0.20, 0.20, 0.36),  # globus pallidus, dark with iron
    (0.44, 0.06, 0.08, 0.24, -0.25, 0.41, 0.42),  # putamen
    (0.19, -0.14, 0.14, 0.19, 0.35, 0.39, 0.45),  # thalamus
    (0.235, 0.27, 0.07, 0.13, 0.20, 0.43, 0.62),  # head of the caudate
)
# Brightness of white matter, grey matter and CSF.
_TISSUES = np.array([0.30, 0.43, 0.92], dtype=np.float32)
_CORTEX_THICKNESS = 0.078

# The numbers of each field of `Subjects`.
_COUNTS = (1, 1, 5, 18, 4, 3, 2 * len(_LATERAL) * len(_SPREAD), 2 * len(_MEDIAL) * len(_SPREAD), 3, 6)
COUNT = sum(_COUNTS)


def from_normals(normals: np.ndarray) -> Subjects:
    """Subjects from [N, COUNT] normal numbers, clipped to 2.5 deviations."""
    subjects = Subjects(*np.split(np.clip(normals, -2.5, 2.5), np.cumsum(_COUNTS)[:-1], axis=1))
    return subjects._replace(level=ndtr(subjects.level), age=ndtr(subjects.age))


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x to the right and y to the front at all pixels, flat, from -1 to 1."""
    centres = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    x, y = np.meshgrid(centres, -centres)
    return x.ravel(), y.ravel()


def coordinates(subjects: Subjects, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The normalised coordinates (p, q) of every pixel, after pose and warp."""
    x, y = grid(size)
    spread = np.array([0.03, 0.010, 0.010, 0.025, 0.02], dtype=np.float32)
    angle, right, front, growth, aspect = np.split(subjects.pose * spread, 5, axis=1)
    # Heads are smaller near the top.
    scale = (1 + growth) * (1 - 0.16 * subjects.level**2)
    p = (x * np.cos(angle) + y * np.sin(angle) - right) / (0.735 * scale * (1 + aspect))
    q = (y * np.cos(angle) - x * np.sin(angle) - front) / (0.89 * scale)

    orders = [(i, j) for i in (1, 2, 3) for j in (1, 2, 3)]
    modes = np.stack([np.cos(np.pi / 2 * i * (x + 1)) * np.cos(np.pi / 2 * j * (y + 1)) for i, j in orders])
    amplitudes = np.array([0.045 / (1 + i + j) for i, j in orders], dtype=np.float32)
    sideways, forwards = np.split(subjects.warp, 2, axis=1)
    p += combination(sideways * amplitudes, modes)
    q += combination(forwards * amplitudes, modes)
    return p * (1 + 0.10 * q + 0.06 * q * q), q


def combination(weights: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """sum_k weights[:, k] fields[k], [N, P] for weights [N, K] and fields [K, P].

    The terms are added one by one. The rounding of a matrix product depends on the number of slices and the processor.
    """
    total = weights[:, :1] * fields[0]
    for k in range(1, len(fields)):
        total += weights[:, k : k + 1] * fields[k]
    return total


def softness(size: int) -> float:
    """The distance over which tissues blend: a pixel, and the thickness of the slice."""
    return 2.7 / size + 0.008


def coverage(distance: np.ndarray, blend: float) -> np.ndarray:
    """The fraction of a pixel inside an outline; `distance` is positive inside."""
    return np.clip(0.5 + distance / blend, 0, 1)


def tissue(subjects: Subjects, p: np.ndarray, q: np.ndarray, blend: float) -> tuple[np.ndarray, np.ndarray]:
    """The tissue at (p, q): (brightness [N, P], inside the brain [N, P] bool).

    The brightness is that before bias field and noise.
    """
    to_cortex, to_fluid, inside = _cortex(subjects, p, q)
    white, grey, csf = np.split(_TISSUES * (1 + 0.07 * subjects.contrast), 3, axis=1)
    # Fibres just below the cortex are a little brighter than those deep inside.
    brightness = white + 0.03 * np.clip(1 - 3 * inside, 0, 1)
    for p0, q0, half_width, half_length, tilt, value, vanishes in _NUCLEI:
        u, v = np.abs(p) - p0 - 0.03 * subjects.age, q - q0
        across = (u * np.cos(tilt) - v * np.sin(tilt)) / half_width
        along = (u * np.sin(tilt) + v * np.cos(tilt)) / half_length
        depth = half_width * (1 - np.sqrt(across * across + along * along))
        shrunk = 0.2 * np.clip(1 - (vanishes - subjects.level) / 0.12, 0, 1)
        brightness += (value - brightness) * coverage(depth - shrunk, blend + 0.03)
    brightness += (grey - brightness) * coverage(_CORTEX_THICKNESS - to_cortex, blend + 0.02)
    fluid = np.maximum(coverage(-to_fluid, blend), coverage(_ventricles(subjects, p, q), blend))
    brightness += (csf - brightness) * fluid
    return brightness, inside > 0


class _Folds(NamedTuple):
    """Sulci as curves below a surface. Each field is [N, 2 K]: the left half, then the right half."""

    position: np.ndarray
    slope: np.ndarray
    depth: np.ndarray
    branch: np.ndarray
    tilt: np.ndarray
    width: np.ndarray


def _folds(table: tuple[tuple[float, ...], ...], normals: np.ndarray, width: np.ndarray) -> _Folds:
    """The K sulci of a table in both halves, moved by a shared amount and by half of a difference."""
    cells = np.arange(len(table), dtype=np.float32)[:, None] + 0.5
    middle = np.concatenate([cells, np.array(table, dtype=np.float32)], axis=1)
    shared, difference = np.moveaxis(normals.reshape(-1, 2, *middle.shape) * _SPREAD, 1, 0)
    both = np.concatenate([middle + shared + difference / 2, middle + shared - difference / 2], axis=1)
    folds = _Folds(*np.moveaxis(both, -1, 0))
    return folds._replace(position=folds.position / len(table), width=np.maximum(folds.width, 0.2) * width)


def _nearest_fold(
    folds: _Folds, right: np.ndarray, along: np.ndarray, below: np.ndarray, arc: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """(distance to the nearest sulcus, distance to its fluid, negative inside).

    Args:
      right: [N, P], 1 for pixels in the right half.
      along: [N, P], the position along the surface from 0 at the front to 1 at the back.
      below: [N, P], the depth under the surface.
      arc: the length of the surface, at `along` = 1.
    """
    slices, twice = folds.position.shape
    count = twice // 2
    # Only the two sulci around a pixel are compared: the others are farther away.
    first = np.clip((along * count - 0.5).astype(np.intp), 0, count - 2) + right * count
    first += twice * np.arange(slices)[:, None]
    to_line = to_fluid = np.float32(np.inf)
    for index in (first, first + 1):
        position, slope, depth, branch, tilt, width = (np.take(field, index, mode="clip") for field in folds)
        across = (along - position - slope * below) * arc
        beyond = below - depth
        stem = across * across + np.square(np.maximum(beyond, 0))
        fork = np.square(np.maximum(np.abs(across) - branch, 0)) + np.square(beyond - tilt * across)
        distance = np.sqrt(np.minimum(stem, 1.3 * fork))
        to_line = np.minimum(to_line, distance)
        # A sulcus is widest at the surface.
        to_fluid = np.minimum(to_fluid, distance - width * (1.2 - 0.5 * below / depth))
    return to_line, to_fluid


def _cortex(subjects: Subjects, p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distance to the folded surface, distance to its fluid, depth inside the brain's outline), each [N, P]."""
    level, age = subjects.level, subjects.age
    width = 0.010 + 0.014 * age
    right = (p > 0).astype(np.intp)
    # Waves with slightly varied phases turn straight lines into convolutions.
    phase = np.split(0.4 * subjects.wrinkle, 4, axis=1)
    a = np.abs(p)
    wave_p = 0.026 * np.sin(7 * q + 3 * a + phase[0]) + 0.018 * np.sin(14 * q - 6 * a + phase[1])
    wave_q = 0.026 * np.sin(8 * a - 3 * q + phase[2]) + 0.018 * np.sin(15 * a + 5 * q + phase[3])
    side, front = a + wave_p * np.minimum(5 * a, 1), q + wave_q
    radius = np.sqrt(side * side + front * front)

    lateral = _folds(_LATERAL, subjects.lateral, width)
    # Sulci are deeper near the top. Low slices show the Sylvian fissure with the insula at its bottom; higher slices
    # show the central sulcus in its place.
    sylvian = np.tile(np.arange(len(_LATERAL)) == _SYLVIAN, 2)
    lateral = lateral._replace(
        depth=lateral.depth + 0.06 * level + sylvian * (0.10 - 0.20 * level),
        branch=lateral.branch + sylvian * 0.24 * (1 - level) ** 1.5,
    )
    angle = np.arctan2(side, front) / np.float32(np.pi)
    to_lateral, in_lateral = _nearest_fold(lateral, right, angle, 1 - radius, np.pi * np.maximum(radius, 0.3))

    medial = _folds(_MEDIAL, subjects.medial, width)
    to_medial, in_medial = _nearest_fold(medial, right, np.clip((1 - front) / 2, 0, 1), side, 2.0)
    fissure = np.abs(p + 0.01 * np.sin(5 * q))
    # The fissure is closed at and below the corpus callosum, and open from front to back above it.
    opening = 2.2 * np.maximum(level - 0.55, 0)
    closed = np.maximum(np.minimum(0.46 - opening - q, q + 0.42 - opening), 0)
    to_medial = np.sqrt(np.square(np.minimum(to_medial, fissure)) + closed * closed)
    in_medial = np.minimum(in_medial, fissure - 0.6 * width) + closed

    inside = 1 - np.sqrt(p * p + q * q)
    to_surface = np.minimum(np.minimum(to_lateral, to_medial), inside)
    to_fluid = np.minimum(np.minimum(in_lateral, in_medial), inside + 0.012 - 0.8 * width)
    # The outline dips where a sulcus or the fissure opens.
    inside = inside - 0.05 * np.exp(-np.square(to_lateral / 0.035)) - 0.07 * np.exp(-np.square(fissure / 0.04))
    return to_surface, to_fluid, inside


def _ventricles(subjects: Subjects, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The depth of a pixel inside the lateral or the third ventricle; negative outside."""
    level, age = subjects.level, subjects.age
    size, asymmetry, forward = np.split(subjects.ventricles, 3, axis=1)
    size = (0.055 + 0.07 * age) * (1 + 0.15 * size)
    asymmetry = 1 + 0.10 * asymmetry * np.sign(p)
    a, q = np.abs(p), q - 0.02 * forward
    # Low slices show separate frontal horns and trigones, middle slices one curved body, high slices nothing.
    horns = np.clip(1.15 - level / 0.62, 0, 1) * np.exp(-np.square((q - 0.27) / 0.17))
    body = np.clip(1 - np.abs(level - 0.42) / 0.32, 0, 1) * np.exp(-np.square((q - 0.05) / 0.30))
    trigones = np.clip(1 - np.abs(level - 0.25) / 0.40, 0, 1) * np.exp(-np.square((q + 0.38) / 0.16))
    half_width = size * asymmetry * (np.maximum(horns, body) + 1.25 * trigones)
    ahead, behind = np.maximum(q - 0.08, 0), np.maximum(-q - 0.02, 0)
    centre = 0.055 + 0.9 * size + 0.40 * ahead**1.5 + 0.62 * behind**1.35
    oblique = np.sqrt(1 + np.where(q > 0, 0.16, 0.56) * np.clip(3 * np.abs(q), 0, 1))
    lateral = half_width - np.abs(a - centre) / oblique - 0.015 - 0.05 * np.clip((level - 0.6) / 0.1, 0, 1)
    third = (0.020 + 0.03 * age) * (1 - np.square((q + 0.12) / 0.18)) - a - np.clip((level - 0.1) / 2, 0, 1)
    return np.maximum(lateral, third)
