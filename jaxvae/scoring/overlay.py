"""A heat map laid over a grey image, and the colours of both."""

import math

import numpy as np

from jaxvae.errors import InputError

STRIP = 1 << 20  # pixels that are drawn at a time


def overlay(image: np.ndarray, map: np.ndarray, *, high: float) -> np.ndarray:
    """Lay the heat map of one image over the image in grey.

    The map's colour covers more of the image the higher the value: nothing at 0, four fifths at `high` and above.

    Args:
      image: [H, W, C] in any range.
      map: [H, W, 1], non-negative.
      high: the value that gets the top colour; the same for all images that are to be compared.

    Returns:
      [H, W, 3] uint8.

    Raises:
      InputError: the map has another size, or `high` is not a positive number.
    """
    image, map = np.asarray(image), np.asarray(map)
    if map.shape != (*image.shape[:2], 1):
        shapes = f"the map is {map.shape} and the image {image.shape}"
        raise InputError(f"{shapes}; an overlay needs (H, W, 1) and (H, W, C)")
    if not (math.isfinite(high) and high > 0):
        raise InputError(f"high={high}: must be a positive number, the value of the map that gets the top colour")
    height, width = map.shape[:2]
    # A million pixels are enough for the grey scale, and strips keep the memory of a large image small.
    stride = math.isqrt(max(0, height * width - 1) // STRIP) + 1
    limits = grey_limits(image[None, ::stride, ::stride])
    step = max(1, STRIP // width)
    drawn = np.empty((height, width, 3), np.uint8)
    for rows in (slice(start, start + step) for start in range(0, height, step)):
        grey = in_grey(image[None, rows], *limits)[0].astype(np.float32).mean(axis=-1, keepdims=True)
        heat = np.nan_to_num(np.clip(map[rows] / high, 0, 1))
        alpha = 0.8 * heat
        # Both ends of the colours are left out: black would darken healthy tissue, and pale yellow is invisible on a
        # bright lesion.
        drawn[rows] = np.round((1 - alpha) * grey + alpha * heat_colours(0.3 + 0.5 * heat[..., 0])).astype(np.uint8)
    return drawn


def grey_limits(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of each image that are drawn black and white, [N, 1, 1, 1] each."""
    pixels = _shown_channels(images)
    low, high = np.nanpercentile(pixels, [0.5, 99.5], axis=(1, 2, 3), keepdims=True)
    # If an image is nearly all background, both percentiles can be equal; its extremes are used then.
    flat = high <= low
    low = np.where(flat, np.nanmin(pixels, axis=(1, 2, 3), keepdims=True), low)
    return low, np.where(flat, np.nanmax(pixels, axis=(1, 2, 3), keepdims=True), high)


def in_grey(images: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as [N, H, W, 3] uint8: black at `low`, white at `high`.

    Three channels stay in colour.
    """
    shown = (_shown_channels(images) - low) / np.where(high > low, high - low, 1)
    shown = np.nan_to_num(np.clip(shown, 0, 1))
    return np.round(np.broadcast_to(255 * shown, (*shown.shape[:3], 3))).astype(np.uint8)


def _shown_channels(images: np.ndarray) -> np.ndarray:
    """Three channels, or the first, as float32."""
    return images[..., slice(None) if images.shape[-1] == 3 else slice(0, 1)].astype(np.float32)


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Values 0..1 of any shape as colours, [..., 3] uint8."""
    from matplotlib import colormaps

    table = np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)
    return table[np.round(255 * np.nan_to_num(values)).astype(np.uint8)]
