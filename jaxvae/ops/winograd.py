"""The 4x4 convolution with stride 2 in nine matrix products instead of sixteen.

The image is cut into 2x2 blocks of pixels, and the kernel into 2x2 blocks of taps. The kernel moves by one block. Along
one dimension, two neighbouring features of the blocks d and the taps g are

    y0 = d0 g0 + d1 g1,    y1 = d1 g0 + d2 g1.

Three of these four products suffice (Winograd 1980; Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks", F(2, 2)):

    m0 = (d0 - d1) g0,    m1 = d1 (g0 + g1),    m2 = (d2 - d1) g1,    y0 = m0 + m1,    y1 = m1 + m2.

Let D be the differences of three, S the sums of two, and D', S' their transposes, all along rows and columns. Each of
the three maps of `jaxvae.ops.convolutions` is linear in both of its arrays, so they share one algorithm:

    F(x, k) = S' (D x * S k),    I(y, k) = D' (S y * S k),    W(x, y) = S' (D x * S y).

Here * is nine matrix products: over the channels for all tiles of 2x2 features in F and I, over the tiles in W.
"""

from collections.abc import Callable, Sequence
from itertools import product

import jax.numpy as jnp
from jax import lax

from jaxvae.ops.pixels import interleaved
from jaxvae.types import Array

Grid = Sequence[Sequence[Array]]


def forward(images: Array, kernel: Array) -> Array:
    """F: [B, H, W, fine], [4, 4, fine, coarse] -> [B, H/2, W/2, coarse]; H, W even."""
    _, height, width, _ = images.shape
    products = _each(jnp.matmul, _of_images(images), _of_kernel(kernel))
    return interleaved(_along_both(_sums_transposed, products))[:, : height // 2, : width // 2]


def input_pullback(features: Array, kernel: Array) -> Array:
    """I: [B, H, W, coarse], [4, 4, fine, coarse] -> [B, 2 H, 2 W, fine]."""
    _, height, width, _ = features.shape
    products = _each(lambda tiles, taps: tiles @ taps.T, _of_features(features), _of_kernel(kernel))
    rows = [_pixels(1, 2 * height, *column) for column in zip(*products, strict=True)]
    return _pixels(2, 2 * width, *rows)


def weight_pullback(images: Array, features: Array) -> Array:
    """W: [B, H, W, fine], [B, H/2, W/2, coarse] -> [4, 4, fine, coarse]; H, W even."""

    def over_tiles(differences: Array, sums: Array) -> Array:
        # Flattened, because XLA transposes every array for a product over three dimensions.
        return differences.reshape(-1, differences.shape[-1]).T @ sums.reshape(-1, sums.shape[-1])

    products = _each(over_tiles, _of_images(images), _of_features(features))
    return kernel_of(jnp.stack([tap for row in _along_both(_sums_transposed, products) for tap in row]))


def blocks(images: Array) -> Array:
    """[B, H/2 + 1, W/2 + 1, 4 c]: the padded images with 2x2 pixels as channels."""
    phases = (
        jnp.pad(images[:, 1 - a :: 2, 1 - b :: 2], ((0, 0), (1 - a, a), (1 - b, b), (0, 0)))
        for a, b in product((0, 1), (0, 1))
    )
    return jnp.concatenate(list(phases), axis=-1)


def taps(kernel: Array) -> Array:
    """[2, 2, 4 fine, coarse]: the kernel in 2x2 blocks, in the order of `blocks`."""
    fine, coarse = kernel.shape[2:]
    return kernel.reshape(2, 2, 2, 2, fine, coarse).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * fine, coarse)


def kernel_of(taps: Array) -> Array:
    """The kernel [4, 4, fine, coarse] from `taps` of any shape [.., coarse]."""
    coarse = taps.shape[-1]
    return taps.reshape(2, 2, 2, 2, -1, coarse).transpose(0, 2, 1, 3, 4, 5).reshape(4, 4, -1, coarse)


def _of_images(images: Array) -> Grid:
    """D x: nine arrays [B, H/4, W/4, 4 fine]."""
    cut = blocks(_whole(images, 4))
    height, width = cut.shape[1] - 2, cut.shape[2] - 2
    thirds = [[cut[:, i : height + i : 2, j : width + j : 2] for j in range(3)] for i in range(3)]
    return _along_both(_differences, thirds)


def _of_features(features: Array) -> Grid:
    """S y: nine arrays [B, H/2, W/2, coarse]."""
    features = _whole(features, 2)
    return _along_both(_sums, [[features[:, i::2, j::2] for j in range(2)] for i in range(2)])


def _of_kernel(kernel: Array) -> Grid:
    """S k: nine matrices [4 fine, coarse]."""
    return _along_both(_sums, taps(kernel))


def _differences(first: Array, middle: Array, last: Array) -> tuple[Array, ...]:
    return first - middle, middle, last - middle


def _sums(first: Array, second: Array) -> tuple[Array, ...]:
    return first, first + second, second


def _sums_transposed(first: Array, middle: Array, last: Array) -> tuple[Array, ...]:
    return first + middle, middle + last


def _pixels(axis: int, size: int, first: Array, middle: Array, last: Array) -> Array:
    """D' along an axis of tiles, which becomes an axis of pixels."""

    def padded(tiles: Array, before: int) -> Array:
        return jnp.pad(tiles, [(before, 1 - before) if dimension == axis else (0, 0) for dimension in range(5)])

    first, middle, last = (sent.reshape(*sent.shape[:3], 2, -1) for sent in (first, middle, last))
    # The last block of a tile is the first of the next one, so there is one more even block than odd blocks.
    even = padded(last, 1) + padded(first, 0)
    odd = padded(middle - first - last, 0)
    cut = jnp.moveaxis(jnp.stack([even, odd], axis=axis + 1), 4, axis + 2)
    pixels = cut.reshape(*first.shape[:axis], -1, *cut.shape[axis + 3 :])
    return lax.slice_in_dim(pixels, 1, size + 1, axis=axis)


def _whole(pixels: Array, size: int) -> Array:
    """Pad with zeros below and to the right to whole tiles."""
    height, width = pixels.shape[1:3]
    return jnp.pad(pixels, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))


def _along_both(step: Callable[..., tuple[Array, ...]], grid: Grid | Array) -> Grid:
    """Apply `step` to each column of a grid, then to each row of the result."""
    columns = [step(*column) for column in zip(*grid, strict=True)]
    return [step(*row) for row in zip(*columns, strict=True)]


def _each(multiply: Callable[[Array, Array], Array], left: Grid, right: Grid) -> Grid:
    return [[multiply(a, b) for a, b in zip(*rows, strict=True)] for rows in zip(left, right, strict=True)]
