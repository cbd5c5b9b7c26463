"""Small operations on images and maps [B, H, W, C]."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.types import Array


def unit_range(images: Array) -> Array:
    """uint8 images as float32 in 0..1, divided by 255; float images unchanged.

    Raises:
      ValueError: integers of another kind, of which nobody knows the range.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; give uint8, or float in the range the model was trained on")
    return images


def flat(images: Array) -> Array:
    """[B, H W C] of [B, H, W, C], of no images too."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


def gaussian_smooth(maps: Array, *, sigma: float, window: int) -> Array:
    """Gaussian smoothing, separable, with zeros beyond the border and a kernel that sums to 1.

    Args:
      maps: [B, H, W, C].
      sigma: standard deviation of the kernel, in pixels.
      window: its odd size; the paper smooths with sigma 3 and 7 pixels.
    Returns:
      [B, H, W, C]; constants are kept away from the border and darkened at it.
    Raises:
      ValueError: sigma is not positive, or window is not odd and positive.

    >>> import jax.numpy as jnp
    >>> point = jnp.zeros((1, 7, 7, 1)).at[0, 3, 3, 0].set(1)
    >>> round(float(gaussian_smooth(point, sigma=3.0, window=7).sum()), 5)
    1.0
    """
    if sigma <= 0:
        raise ValueError(f"sigma={sigma} must be positive; leave the smoothing out instead")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window} must be odd and positive; the paper uses 7")
    _, height, width, _ = maps.shape
    rows, columns = (jnp.asarray(_band(size, sigma, window), maps.dtype) for size in (height, width))
    # Two products with banded matrices: the fastest form measured on a CPU, and one kernel launch each on a GPU.
    # Full precision, because a GPU would otherwise round the maps to ten bits.
    smoothed = jnp.einsum("ih,bhwc->biwc", rows, maps, precision=lax.Precision.HIGHEST)
    return jnp.einsum("jw,biwc->bijc", columns, smoothed, precision=lax.Precision.HIGHEST)


def _band(size: int, sigma: float, window: int) -> np.ndarray:
    """[size, size]: row i holds the kernel centred on pixel i."""
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    kernel = np.exp(-0.5 * np.square(np.arange(window // 2 + 1) / sigma))
    kernel /= kernel[0] + 2 * kernel[1:].sum()
    return np.where(distance <= window // 2, kernel[np.minimum(distance, window // 2)], 0.0)
