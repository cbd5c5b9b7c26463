"""Separable filters of maps [B, H, W, C], with zeros beyond the border."""

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.types import Array


def by_shifts(maps: Array, weights: np.ndarray) -> Array:
    """One weight at a time, along the rows and then along the columns.

    These operations are elementwise, so XLA fuses them with the operations before. No device rounds them to fewer bits,
    as it may do with a matrix product.
    """
    reach = len(weights) // 2
    for axis in (2, 1):
        edges = [(reach, reach, 0) if axis == other else (0, 0, 0) for other in range(maps.ndim)]
        padded = lax.pad(maps, jnp.zeros((), maps.dtype), edges)
        shifted = (lax.slice_in_dim(padded, i, i + maps.shape[axis], axis=axis) for i in range(len(weights)))
        maps = reduce(jnp.add, (float(weight) * part for weight, part in zip(weights, shifted, strict=True)))
    return maps


def by_products(maps: Array, weights: np.ndarray) -> Array:
    """Products with two band matrices, in full precision. A NaN spreads over its whole image."""
    rows, columns = (jnp.asarray(_band(size, weights), maps.dtype) for size in maps.shape[1:3])
    maps = jnp.einsum("bhwc,wj->bhjc", maps, columns, precision=lax.Precision.HIGHEST)
    return jnp.einsum("bhjc,hi->bijc", maps, rows, precision=lax.Precision.HIGHEST)


def _band(size: int, weights: np.ndarray) -> np.ndarray:
    """[size, size]: column i has the weights of the sum at pixel i."""
    reach = len(weights) // 2
    return sum((weight * np.eye(size, k=reach - i) for i, weight in enumerate(weights)), np.zeros((size, size)))
