"""The three maps of `jaxvae.ops.convolutions` as XLA's own convolutions.

`forward` takes any kernel, stride and padding. The other functions take the networks' case or say what they take.
"""

import jax
from jax import lax

from jaxvae.types import Array

KERNEL, STRIDE, PADDING = 4, 2, 1
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def forward(images: Array, kernel: Array, stride: int = STRIDE, padding: int = PADDING) -> Array:
    """F: [B, H, W, fine], [h, w, fine, coarse] -> [B, H', W', coarse]."""
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS)


def transposed(
    features: Array, kernel: Array, shape: tuple[int, ...], stride: int = STRIDE, padding: int = PADDING
) -> Array:
    """I: [B, H', W', coarse], [h, w, fine, coarse] -> `shape`, [B, H, W, fine]."""
    images = jax.ShapeDtypeStruct(shape, features.dtype)
    return jax.linear_transpose(lambda images: forward(images, kernel, stride, padding), images)(features)[0]


def input_pullback(features: Array, kernel: Array) -> Array:
    """I: [B, H, W, coarse], [4, 4, fine, coarse] -> [B, 2 H, 2 W, fine]."""
    batch, height, width, _ = features.shape
    return transposed(features, kernel, (batch, 2 * height, 2 * width, kernel.shape[2]))


def input_pullback_by_phases(features: Array, kernel: Array) -> Array:
    """I as one 2x2 convolution: for each of the 2x2 phases of the pixels, I is a 2x2 convolution over the features."""
    fine, coarse = kernel.shape[2:]
    phases = kernel.reshape(2, 2, 2, 2, fine, coarse)[::-1, :, ::-1]  # [t, a, u, b, fine, coarse], t, u reversed
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, coarse, 4 * fine)
    blocks = lax.conv_general_dilated(features, phases, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS)
    batch, rows, columns, _ = blocks.shape
    pixels = blocks.reshape(batch, rows, columns, 2, 2, fine).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, fine)[:, 1:-1, 1:-1]


def weight_pullback(
    images: Array,
    features: Array,
    extents: tuple[int, ...] = (KERNEL, KERNEL),
    stride: int = STRIDE,
    padding: int = PADDING,
) -> Array:
    """W: [B, H, W, fine], [B, H', W', coarse] -> [h, w, fine, coarse]; `extents` is (h, w)."""
    kernel = jax.ShapeDtypeStruct((*extents, images.shape[3], features.shape[3]), images.dtype)
    return jax.linear_transpose(lambda kernel: forward(images, kernel, stride, padding), kernel)(features)[0]


def weight_pullback_transposed(
    images: Array,
    features: Array,
    extents: tuple[int, ...] = (KERNEL, KERNEL),
    stride: int = STRIDE,
    padding: int = PADDING,
) -> Array:
    """W with explicit transpositions, see `weight_pullback`.

    Each kernel element is a sum over the batch and all positions: a convolution of the images with the features as
    kernel, which contracts the batch instead of the channels. XLA's CPU compiler does not insert the transpositions
    inside a loop. There, a convolution in any other layout is 100 times slower.
    """
    # Rows and columns at the end that F does not reach.
    left_out = [(size + 2 * padding - extent) % stride for size, extent in zip(images.shape[1:3], extents, strict=True)]
    pads = [(padding, padding - rest) for rest in left_out]
    images, features, apart = images.transpose(3, 1, 2, 0), features.transpose(1, 2, 0, 3), (stride, stride)
    kernel = lax.conv_general_dilated(images, features, (1, 1), pads, rhs_dilation=apart, dimension_numbers=_DIMENSIONS)
    return kernel.transpose(1, 2, 0, 3)
