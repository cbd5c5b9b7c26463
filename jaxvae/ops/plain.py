"""The three maps of `jaxvae.ops.convolutions` as XLA's own convolutions.

`forward` takes any kernel, stride and padding. The other functions take the networks' case or say what they take.
"""

import jax
import jax.numpy as jnp
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


def transposed_with_flips(features: Array, kernel: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """`transposed` with explicit transpositions: a dilated convolution with the flipped kernel.

    XLA's CPU compiler does not insert them inside a loop, see `weight_pullback_transposed`. With them a training step
    of `UNet` takes a quarter of the time.
    """
    sizes = zip(shape[1:3], features.shape[1:3], kernel.shape, strict=False)
    pads = [(extent - 1 - padding, size + padding - (count - 1) * stride - 1) for size, count, extent in sizes]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    apart = (stride, stride)
    return lax.conv_general_dilated(features, flipped, (1, 1), pads, lhs_dilation=apart, dimension_numbers=_DIMENSIONS)


def transposed_by_phases(features: Array, kernel: Array, shape: tuple[int, ...], padding: int) -> Array:
    """`transposed` with a stride of 2 to even sizes: one convolution has all 2x2 phases of the pixels as channels."""
    fine, coarse = kernel.shape[2:]
    # With an even padding and an even kernel, a block of 2x2 pixels meets a block of 2x2 kernel elements.
    front = padding % 2
    rows, columns = (-(-(front + extent) // 2) for extent in kernel.shape[:2])
    ends = ((front, 2 * size - front - extent) for size, extent in zip((rows, columns), kernel.shape, strict=False))
    blocks = jnp.pad(kernel, (*ends, (0, 0), (0, 0))).reshape(rows, 2, columns, 2, fine, coarse)
    flipped = blocks[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4).reshape(rows, columns, coarse, 4 * fine)
    low = (padding + front) // 2
    pads = [
        (extent - 1 - low, size // 2 + low - count)
        for extent, size, count in zip((rows, columns), shape[1:3], features.shape[1:3], strict=True)
    ]
    return spread_out(lax.conv_general_dilated(features, flipped, (1, 1), pads, dimension_numbers=_DIMENSIONS))


def spread_out(features: Array) -> Array:
    """Four groups of channels as 2x2 pixels: [B, H, W, 4 c] -> [B, 2 H, 2 W, c].

    After a dense layer, it is a transposed convolution with a kernel of 2 and a stride of 2.
    """
    batch, height, width, channels = features.shape
    pixels = features.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * height, 2 * width, channels // 4)


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
    return spread_out(blocks)[:, 1:-1, 1:-1]


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
