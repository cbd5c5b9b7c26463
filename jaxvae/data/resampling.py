"""Images and maps resized by averaging over areas, linear interpolation or picking pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxvae.data.normalization import as_float

if TYPE_CHECKING:
    from scipy.sparse import csr_array

STRIP = 1 << 20  # samples that are resized at once


def resize(image: np.ndarray, size: int | tuple[int, int], *, kind: Literal["image", "mask"]) -> np.ndarray:
    """Stretch or shrink [H, W, C] to [size, size, C], or to a size of (height, width).

    An image is averaged over the area that each new pixel covers, as float32; the mean of the image stays what it was.
    uint8 becomes 0..1, other types keep their unit. A mask takes the value under each new pixel's centre and keeps its
    type.

    >>> image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    >>> resize(image, 2, kind="image")[..., 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    >>> resize(image > 9, 2, kind="mask")[..., 0]
    array([[False, False],
           [ True,  True]])
    """
    height, width, channels = image.shape
    tall, wide = sides(size)
    if kind == "mask":
        return image[_centres(tall, height)[:, None], _centres(wide, width)]
    rows = np.empty((tall, width, channels), np.float32)
    # In strips, since floating point takes four times the memory of a photograph.
    step = max(1, STRIP // (height * channels))
    for start in range(0, width, step):
        strip = as_float(image[:, start : start + step])
        shrunk = area_weights(tall, height) @ strip.reshape(height, -1)
        rows[:, start : start + step] = shrunk.reshape(tall, -1, channels)
    columns = rows.reshape(tall, width, channels).swapaxes(0, 1).reshape(width, tall * channels)
    return (area_weights(wide, width) @ columns).reshape(wide, tall, channels).swapaxes(0, 1).copy()


def on_grid(map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map [h, w, C] of a prepared image on the grid of the image it was prepared from, `shape` (H, W).

    Between the centres of its pixels a map is linear, and constant beyond the outermost; where the image has fewer
    pixels, the map is averaged as `resize` does it.

    >>> on_grid(np.array([[[0.0], [1.0]]], np.float32), (1, 4))[..., 0]
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    for axis, size in enumerate(shape[:2]):
        if size != (length := map.shape[axis]):
            weights = area_weights(size, length) if size < length else _linear_weights(size, length)
            across = map.swapaxes(0, axis)
            across = (weights @ across.reshape(length, -1)).reshape(size, *across.shape[1:])
            map = across.swapaxes(0, axis)
    return np.ascontiguousarray(map)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int | np.integer) else size


def _centres(size: int, length: int) -> np.ndarray:
    """[size]: the old pixel, 0..length - 1, under the centre of each new one."""
    return (2 * np.arange(size) + 1) * length // (2 * size)


@lru_cache(maxsize=16)
def area_weights(size: int, length: int) -> csr_array:
    """[size, length] float32: the share of each old pixel in each new one; rows sum to 1, nearly all of it is 0."""
    from scipy.sparse import csr_array

    edges = np.arange(size + 1) * (length / size)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return csr_array((np.clip(overlap, 0, None) * (size / length)).astype(np.float32))


@lru_cache(maxsize=16)
def _linear_weights(size: int, length: int) -> csr_array:
    """[size, length] float32: the shares of the two old pixels between whose centres each new one's lies."""
    from scipy.sparse import csr_array

    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    first = np.minimum(place.astype(int), max(0, length - 2))
    second = np.minimum(first + 1, length - 1)
    rows, share = np.arange(size), (place - first).astype(np.float32)
    entries = np.concatenate([1 - share, share]), (np.tile(rows, 2), np.concatenate([first, second]))
    return csr_array(entries, shape=(size, length))
