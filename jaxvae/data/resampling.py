"""Resizing of images, masks and maps.

They use averages over areas, linear interpolation, or nearest pixels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import scipy  # which imports scipy.sparse when it is used

from jaxvae.data.normalization import as_float

STRIP = 1 << 20  # samples that are resized at once


def resize(image: np.ndarray, size: int | tuple[int, int], *, kind: Literal["image", "mask"]) -> np.ndarray:
    """Resize [H, W, C] to [size, size, C], or to a size of (height, width).

    Each pixel of a resized image is the mean over its area in the old image, as float32, so the mean of the image
    stays. uint8 becomes 0..1, other types keep their unit. Each pixel of a resized mask takes the old value under its
    centre, and the mask keeps its type.

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
    # Strips bound the memory: floating point takes four times that of a photograph.
    step = max(1, STRIP // (height * channels))
    for start in range(0, width, step):
        strip = as_float(image[:, start : start + step])
        rows[:, start : start + step] = along(0, weights(tall, height, areas=True), strip)
    return np.ascontiguousarray(along(1, weights(wide, width, areas=True), rows))


def on_grid(map: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A map [h, w, C] of a prepared image on the grid (H, W) of its image.

    >>> on_grid(np.array([[[0.0], [1.0]]], np.float32), (1, 4))[..., 0]
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    for axis, size in enumerate(shape[:2]):
        if size != map.shape[axis]:
            map = along(axis, weights(size, map.shape[axis]), map)
    return np.ascontiguousarray(map)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size."""
    return (size, size) if isinstance(size, int | np.integer) else size


def along(axis: int, weights: scipy.sparse.csr_array, array: np.ndarray) -> np.ndarray:
    """The product of a matrix with one axis of an array, without BLAS threads."""
    moved = np.moveaxis(array, axis, 0)
    product = weights @ np.ascontiguousarray(moved).reshape(len(moved), -1)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis)


@lru_cache(maxsize=128)
def weights(size: int, length: int, *, areas: bool = False) -> scipy.sparse.csr_array:
    """[size, length] float32: weights of resizing; each row sums to 1.

    They average over areas to shrink and interpolate linearly to enlarge.

    With `areas`, the share of each old pixel in each new one is its weight for enlarging too.
    """
    pixels = np.arange(length)
    if areas or size <= length:
        edges = np.arange(size + 1) * (length / size)
        overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return scipy.sparse.csr_array((np.clip(overlap, 0, None) * (size / length)).astype(np.float32))
    # Interpolation is between the centres of old pixels, and constant beyond the outermost.
    centres = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return scipy.sparse.csr_array(np.maximum(0, 1 - np.abs(centres[:, None] - pixels)).astype(np.float32))


def _centres(size: int, length: int) -> np.ndarray:
    """[size]: the old pixel, 0..length - 1, under the centre of each new one."""
    return (2 * np.arange(size) + 1) * length // (2 * size)
