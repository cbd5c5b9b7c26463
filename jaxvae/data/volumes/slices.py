"""Axial slices of a volume for a model, and maps back on its grid.

The brain is normalised as a whole and cut out with a box that is square in millimetres. Each axial plane of the box is
resized to size x size pixels. Rows run from front to back, columns from the patient's left to the right.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data import normalization
from jaxvae.data.normalization import Normalization, centre_and_spread
from jaxvae.data.resampling import along, weights
from jaxvae.errors import ArgumentError, InputError, refuse_below_zero, refuse_unless_positive

# The JSON types of a `Slicing`, as `files.read_json` takes them.
FACTS = {
    **{"size": int, "normalise": str, "percentiles?": list | None, "clip?": int | float | None},
    **{"smallest?": int | float, "neighbours?": int},
}


@dataclass(frozen=True)
class Slicing:
    """How volumes become slices.

    Args:
      size: pixels in height and width; the paper's is 64.
      normalise: `zscore` or `robust` over the voxels of the brain, as `normalization.centre_and_spread`; `none` keeps
        the scan's own unit.
      percentiles: the brain's values are clipped to these percentiles before normalising.
      clip: values are clipped to +-clip after normalising; the paper's 1.5 removes much of what is bright in lesions.
      smallest: planes with less than this share of the largest plane's brain are dropped; 0.25 drops about the 20
        planes at each end that the paper drops.
      neighbours: planes above and below that each image has as further channels, background beyond the volume.

    Raises:
      InputError: a value is out of range.
    """

    size: int = 64
    normalise: Normalization = "zscore"
    percentiles: tuple[float, float] | None = None
    clip: float | None = None
    smallest: float = 0.25
    neighbours: int = 0

    def __post_init__(self) -> None:
        refuse_unless_positive("size", self.size)
        normalization.check(self.normalise)
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ArgumentError("percentiles", self.percentiles, "must ascend within 0 to 100")
        refuse_unless_positive("clip", self.clip)
        if not 0 <= self.smallest <= 1:
            raise ArgumentError("smallest", self.smallest, "must be a fraction from 0 to 1")
        refuse_below_zero("neighbours", self.neighbours)


class Placement(NamedTuple):
    """The place of slices in their volume, by which maps are put back."""

    shape: tuple[int, int, int]  # X Y Z of the volume
    planes: tuple[int, ...]  # the z of each of the K slices
    left: int  # the first x of the box, below 0 if the box starts outside the volume
    back: int  # the first y of the box
    width: int  # voxels of the box along x
    depth: int  # voxels of the box along y


class Slices(NamedTuple):
    """The slices of one volume."""

    images: np.ndarray  # [K, S, S, C] float32, 0 outside the brain
    brains: np.ndarray  # [K, S, S, 1] bool
    placement: Placement
    clipped: float  # the share of the brain's voxels that `clip` changed


def middle(images: np.ndarray) -> np.ndarray:
    """The middle channel of slices with neighbours as channels, [N, S, S, 1]."""
    return images[..., [images.shape[-1] // 2]]


def cut(voxels: np.ndarray, brain: np.ndarray, spacing: tuple[float, float, float], slicing: Slicing) -> Slices:
    """Normalise a volume and cut it into slices.

    Args:
      voxels: [X, Y, Z] float32, RAS.
      brain: [X, Y, Z] bool.
      spacing: millimetres along x, y and z.
    Raises:
      InputError: the brain is empty, or has one value throughout.
    """
    if not brain.any():
        raise InputError("its brain mask is empty; give another with `brains`")
    placement = _placement(brain, spacing, slicing)
    inside = normalised(voxels[brain], slicing)
    clipped = 0.0 if slicing.clip is None else float(np.mean(np.abs(inside) >= slicing.clip))
    prepared = np.zeros(voxels.shape, np.float32)
    prepared[brain] = inside
    reach = range(-slicing.neighbours, slicing.neighbours + 1)
    planes = np.array(placement.planes)[:, None] + np.array(reach)  # [K, C]
    within = (planes >= 0) & (planes < voxels.shape[2])
    images = _shrunk(prepared, np.clip(planes, 0, voxels.shape[2] - 1), placement, slicing.size)
    images *= within[:, None, None, :]
    brains = resampled(brain, placement, slicing.size)
    return Slices(images, brains, placement, clipped)


def resampled(mask: np.ndarray, placement: Placement, size: int) -> np.ndarray:
    """A mask on the slices, [K, S, S, 1] bool: True if half of the pixel is inside."""
    return _shrunk(mask.astype(np.float32), np.array(placement.planes)[:, None], placement, size) >= 0.5


def put_back(maps: np.ndarray, placement: Placement, brain: np.ndarray) -> np.ndarray:
    """Maps of slices on the volume's grid, interpolated linearly in each plane.

    The volume is 0 outside the brain and on dropped planes.

    Args:
      maps: [K, S, S, 1] float32.
      brain: [X, Y, Z] bool.
    Returns:
      [X, Y, Z] float32.
    """
    size = maps.shape[1]
    upright = maps[:, ::-1, :, 0].T.astype(np.float32)  # [x, y, K]
    box = along(1, weights(placement.depth, size), along(0, weights(placement.width, size), upright))
    volume = np.zeros(placement.shape, np.float32)
    (x, box_x), (y, box_y) = _overlap(placement)
    volume[x, y, list(placement.planes)] = box[box_x, box_y]
    volume[~brain] = 0
    return volume


def _placement(brain: np.ndarray, spacing: tuple[float, float, float], slicing: Slicing) -> Placement:
    area = brain.sum(axis=(0, 1))
    planes = tuple(int(z) for z in np.flatnonzero((area > 0) & (area >= slicing.smallest * area.max())))
    sides = [np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2))]
    first, last = np.array([[side[0], side[-1] + 1] for side in sides]).T
    # The box is 5 % larger than the brain, so that no lesion at its rim touches the border of an image.
    millimetres = 1.05 * np.max((last - first) * spacing[:2])
    width, depth = (max(1, round(float(millimetres / step))) for step in spacing[:2])
    left, back = (int(middle) for middle in (first + last - [width, depth]) // 2)
    shape = brain.shape
    return Placement((shape[0], shape[1], shape[2]), planes, left, back, width, depth)


def normalised(values: np.ndarray, slicing: Slicing) -> np.ndarray:
    """The voxels of a brain, [P] float32, normalised and clipped.

    Raises InputError if all have one value.
    """
    if slicing.percentiles is not None:
        values = np.clip(values, *np.percentile(values, slicing.percentiles).astype(np.float32))
    if slicing.normalise != "none":
        numbers = values.astype(np.float64)
        centre, spread = centre_and_spread(numbers, robust=slicing.normalise == "robust")
        if spread == 0:
            raise InputError("all voxels of its brain have one value; give another scan or another mask")
        values = ((numbers - centre) / spread).astype(np.float32)
    return values if slicing.clip is None else np.clip(values, -slicing.clip, slicing.clip)


def _shrunk(volume: np.ndarray, planes: np.ndarray, placement: Placement, size: int) -> np.ndarray:
    """[K, S, S, C]: the planes [K, C] within the box, resized to the size of the slices."""
    wanted, index = np.unique(planes, return_inverse=True)
    (x, box_x), (y, box_y) = _overlap(placement)
    box = np.zeros((placement.width, placement.depth, len(wanted)), np.float32)
    box[box_x, box_y] = volume[x, y][..., wanted]
    small = along(1, weights(size, placement.depth), along(0, weights(size, placement.width), box))
    upright = small.T[:, ::-1]  # [planes, S, S], the front on top
    return np.ascontiguousarray(np.moveaxis(upright[index.reshape(planes.shape)], 1, -1))


def _overlap(placement: Placement) -> list[tuple[slice, slice]]:
    """For x and y: the range of the volume that the box covers, and the same range within the box."""
    pairs = []
    for start, length, whole in zip(placement[2:4], placement[4:6], placement.shape, strict=False):
        low, high = max(start, 0), min(start + length, whole)
        pairs.append((slice(low, high), slice(low - start, high - start)))
    return pairs


def to_config(slicing: Slicing) -> dict[str, Any]:
    """A slicing as JSON values."""
    return {**asdict(slicing), "percentiles": slicing.percentiles and list(slicing.percentiles)}


def from_config(config: dict[str, Any]) -> Slicing:
    """The slicing that `to_config` wrote. Raises InputError if damaged."""
    way_out = "prepare the volumes again"
    files.check(config, "slicing", FACTS, way_out)
    percentiles = config.get("percentiles")
    try:
        return Slicing(**{**config, "percentiles": None if percentiles is None else tuple(percentiles)})
    except TypeError as error:
        raise InputError(f"slicing: damaged, or of another version ({error}); {way_out}") from error
