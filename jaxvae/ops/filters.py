"""Small operations on images and maps [B, H, W, C]."""

from __future__ import annotations

import math
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.types import Array


def unit_range(images: Array) -> Array:
    """uint8 images as float32 in 0..1, divided by 255; floats of 16 bits as float32; other float images unchanged.

    Raises:
      ValueError: integers of another kind, of which nobody knows the range.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are {images.dtype}; give uint8, or float in the range the model was trained on")
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def flat(images: Array) -> Array:
    """[B, H W C] of [B, H, W, C], of no images too."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


@jax.jit(static_argnames=("sigma", "window"))
def gaussian_smooth(maps: Array, *, sigma: float, window: int) -> Array:
    """Gaussian smoothing, separable, with zeros beyond the border and a kernel that sums to 1.

    Args:
      maps: [B, H, W, C].
      sigma: standard deviation of the kernel, in pixels.
      window: its odd size; the paper smooths with sigma 3 and 7 pixels.
    Returns:
      [B, H, W, C]; constants are kept away from the border and darkened at it.
    Raises:
      ValueError: sigma is not positive, window is not odd and positive, or maps are not four-dimensional.

    >>> import jax.numpy as jnp
    >>> point = jnp.zeros((1, 7, 7, 1)).at[0, 3, 3, 0].set(1)
    >>> round(float(gaussian_smooth(point, sigma=3.0, window=7).sum()), 5)
    1.0
    """
    if not sigma > 0:
        raise ValueError(f"sigma={sigma} must be positive; window=1 smooths nothing")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window} must be odd and positive; the paper uses 7")
    if maps.ndim != 4:
        raise ValueError(f"maps are {list(maps.shape)}; give [B, H, W, C], of one map maps[None]")
    # One weight at a time, along the rows and then across them: elementwise, so that XLA fuses it with what makes the
    # maps, and no device rounds it as it may a product of matrices.
    reach = window // 2
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    weights /= weights.sum()
    for axis in (2, 1):
        padded = jnp.pad(maps, [(reach, reach) if axis == other else (0, 0) for other in range(maps.ndim)])
        shifted = (lax.slice_in_dim(padded, i, i + maps.shape[axis], axis=axis) for i in range(window))
        maps = reduce(jnp.add, (float(weight) * part for weight, part in zip(weights, shifted, strict=True)))
    return maps
