"""Scaling, flattening and smoothing of images and maps [B, H, W, C]."""

import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.ops.forms import by_platform
from jaxvae.types import Array

Images = TypeVar("Images", Array, np.ndarray)


def unit_range(images: Images) -> Images:
    """Convert uint8 images to float32 in 0..1, divided by 255.

    16-bit floats become float32; other float images stay unchanged.

    Raises:
      ValueError: other integers, because their range is unknown.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images: {images.dtype}; give uint8, or float in the range of the training images")
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def flat(images: Array) -> Array:
    """Reshape [B, H, W, C] to [B, H W C]; B can be 0."""
    return images.reshape(len(images), math.prod(images.shape[1:]))


@jax.jit(static_argnames=("sigma", "window"))
def gaussian_smooth(maps: Array, *, sigma: float, window: int) -> Array:
    """Gaussian smoothing with zeros beyond the border and a kernel that sums to 1.

    Args:
      maps: [B, H, W, C].
      sigma: standard deviation of the kernel, in pixels; 3 in the paper.
      window: odd size of the kernel, in pixels; 7 in the paper.

    Returns:
      [B, H, W, C]; constants stay the same, but become smaller near the border.

    Raises:
      ValueError: sigma is not positive, window is not odd and positive, or maps are not four-dimensional.
    """
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: must be positive; window=1 switches smoothing off")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window}: must be odd and positive; the paper uses 7")
    if maps.ndim != 4:
        raise ValueError(f"maps: {list(maps.shape)}; must be [B, H, W, C], for one map maps[None]")
    reach = window // 2
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    weights /= weights.sum()
    maps = maps.astype(jnp.result_type(maps, 1.0))
    return by_platform(lambda platform: platform.smooth, maps, weights=weights)
