"""What is done to every image before a model sees it: written into a run, and done again when the run scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxvae.errors import ArgumentError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class Preparation:
    """Channels are chosen first, then the image is resized, then normalised.

    Args:
      size: both sides in pixels after resizing, or (height, width); None leaves them.
      channels: the channels to keep, counted from 0; None keeps all.
      normalise: per image and channel, over the pixels that are not 0 in every channel (so that the empty surrounding
        of a scan does not count): `zscore` subtracts the mean and divides by the standard deviation; `robust` takes
        the median and 1.4826 times the median absolute deviation (the standard deviation where that is 0, as more than
        half of the pixels are equal); `none` keeps 0..1, or the range of a float image.
    Raises:
      InputError: size is not positive, channels are empty or negative, normalise is none of the three.
    """

    size: int | tuple[int, int] | None = None
    channels: tuple[int, ...] | None = None
    normalise: Literal["none", "zscore", "robust"] = "none"

    def __post_init__(self) -> None:
        if self.size is not None and min(_sides(self.size)) < 1:
            raise ArgumentError("size", self.size, "both sides need at least 1 pixel")
        if self.channels is not None and (not self.channels or min(self.channels) < 0):
            raise ArgumentError("channels", self.channels, "pass those to keep, counted from 0")
        if self.normalise not in ("none", "zscore", "robust"):
            raise ArgumentError("normalise", self.normalise, "pass none, zscore or robust")


AS_IS = Preparation()
STRIP = 1 << 20  # samples that are resized at once


def prepare(image: np.ndarray, preparation: Preparation) -> np.ndarray:
    """The image, [H, W, C], uint8 or float32, as the model sees it.

    uint8 stays uint8 where nothing is resized or normalised; else it becomes float32 in 0..1 first.

    Raises:
      InputError: the image lacks a channel that is to be kept.

    >>> image = np.array([[[0, 1], [0, 3]]], np.float32)  # one row of two pixels, two channels
    >>> prepare(image, Preparation(channels=(1,)))[..., 0]
    array([[1., 3.]], dtype=float32)
    >>> prepare(image, Preparation(channels=(1,), normalise="zscore"))[..., 0]
    array([[-1.,  1.]], dtype=float32)
    """
    if preparation.channels is not None:
        if max(preparation.channels) >= image.shape[-1]:
            kept, count = preparation.channels, image.shape[-1]
            raise ArgumentError("channels", kept, f"of an image of {count} channels, 0 to {count - 1} can be kept")
        image = image[..., list(preparation.channels)]
    if preparation.size is not None:
        image = resize(image, preparation.size, kind="image")
    if preparation.normalise != "none":
        image = _normalise(as_float(image), robust=preparation.normalise == "robust")
    return image


def as_float(images: np.ndarray) -> np.ndarray:
    """uint8 as float32 in 0..1; float32 as it is."""
    return images.astype(np.float32) / 255 if images.dtype == np.uint8 else images


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
    tall, wide = _sides(size)
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


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
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


def _normalise(image: np.ndarray, *, robust: bool) -> np.ndarray:
    foreground = image[(image != 0).any(axis=-1)].T.astype(np.float64, order="C")  # [C, pixels]
    if foreground.size == 0:
        return image
    centre, spread = foreground.mean(axis=1), foreground.std(axis=1)
    if robust:
        centre = np.median(foreground, axis=1)
        mad = 1.4826 * np.median(np.abs(foreground - centre[:, None]), axis=1)
        spread = np.where(mad > 0, mad, spread)
    # A channel without spread beyond float32's rounding, such as an empty one, is only centred.
    constant = spread <= 1e-6 * np.abs(foreground).max(axis=1)
    spread = np.where(constant, 1, spread)
    return (image - centre.astype(np.float32)) / spread.astype(np.float32)
