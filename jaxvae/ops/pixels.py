"""Pixels under the taps of a kernel, and pixels from the contributions of features."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxvae.types import Array


def interleaved(grid: Sequence[Sequence[Array]]) -> Array:
    """[B, rows H, columns W, ...] from a grid of [B, H, W, ...], one per pixel of a tile."""
    batch, height, width, *rest = grid[0][0].shape
    pixels = jnp.stack([jnp.stack(list(row), axis=3) for row in grid], axis=2)
    return pixels.reshape(batch, height * len(grid), width * len(grid[0]), *rest)


def pixel_pair(taps: Sequence[Array], axis: int) -> tuple[Array, Array]:
    """Pixels 2i and 2i + 1 along an axis, from the contributions of feature i to pixels 2i - 1 .. 2i + 2."""
    # These are shifts, not one sum over the padded image, which would keep four arrays of its size. Above 32 MiB of
    # intermediate results, glibc requests the memory from the system again in each call of a program.
    return taps[1] + _shifted(taps[3], 1, axis), taps[2] + _shifted(taps[0], -1, axis)


def taps_of(images: Array) -> list[Array]:
    """The pixels [B, H/2, W/2, c] under each of the 4x4 taps of the kernel; H, W even, zeros beyond the border."""
    batch, height, width, channels = images.shape
    # `lax` functions, because NumPy's indexing takes several times as long to trace.
    padded = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)])

    def tap(a: int, b: int) -> Array:
        return lax.slice(padded, (0, a, b, 0), (batch, a + height - 1, b + width - 1, channels), (1, 2, 2, 1))

    return [tap(a, b) for a in range(4) for b in range(4)]


def unstacked(array: Array, axis: int) -> list[Array]:
    """The parts of an array along an axis."""
    return [lax.index_in_dim(array, i, axis, keepdims=False) for i in range(array.shape[axis])]


def widened(array: Array) -> Array:
    """The array in at least 32 bits, so that sums of its elements are not rounded to fewer."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _shifted(array: Array, by: int, axis: int) -> Array:
    """Shift along an axis and fill with zeros."""
    edges = [(by, -by, 0) if dimension == axis else (0, 0, 0) for dimension in range(array.ndim)]
    return lax.pad(array, jnp.zeros((), array.dtype), edges)
