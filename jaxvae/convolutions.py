"""The strided convolution of the encoder and its transpose, the layer of the decoder.

Both are one triple of linear maps that share a kernel k [h, w, fine, coarse]:

    F(x, k)  convolve               [B, H, W, fine]    -> [B, H/2, W/2, coarse]
    I(y, k)  pull back to the input [B, H/2, W/2, coarse] -> [B, H, W, fine]
    W(x, y)  pull back to the kernel                   -> [h, w, fine, coarse]

`convolve` is F with the pullbacks I and W. `convolve_transposed` is I with the pullbacks F and W, its two arrays
exchanged. Left to itself, XLA derives the weight gradient of the transposed layer from a dilated convolution, which on
a CPU is 10 to 40 times slower than W; so the rules are written out here.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.types import Array

KERNEL, STRIDE, PADDING = 4, 2, 1
FEW_CHANNELS = 4
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def convolve(images: Array, kernel: Array) -> Array:
    """4x4 convolution with stride 2 and padding 1: F in the module's notes.

    Args:
      images: [B, H, W, fine], H and W even.
      kernel: [4, 4, fine, coarse].
    Returns:
      [B, H/2, W/2, coarse].
    """
    return _forward(images, kernel)


@jax.custom_vjp
def convolve_transposed(features: Array, kernel: Array) -> Array:
    """The transpose of `convolve`, with the same kernel: I in the module's notes.

    Args:
      features: [B, h, w, coarse].
      kernel: [4, 4, fine, coarse], laid out as the kernel of the convolution this is the transpose of.
    Returns:
      [B, 2h, 2w, fine].
    """
    return _input_pullback(features, kernel)


def _forward(images: Array, kernel: Array) -> Array:
    if images.shape[-1] <= FEW_CHANNELS:
        fine, coarse = kernel.shape[2:]
        kernel = kernel.reshape(2, 2, 2, 2, fine, coarse).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * fine, coarse)
        return lax.conv_general_dilated(_blocks(images), kernel, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)
    pads = ((PADDING, PADDING), (PADDING, PADDING))
    return lax.conv_general_dilated(images, kernel, (STRIDE, STRIDE), pads, dimension_numbers=_DIMENSIONS)


def _blocks(images: Array) -> Array:
    """[B, H/2 + 1, W/2 + 1, 4 c]: the padded images, each 2x2 block of pixels one pixel of four times the channels.

    One to four channels do not fill a processor's vectors; in this form the layer is a 2x2 convolution, twice as fast
    forward for one channel, and four times for the weight pullback. From 16 channels on it is slower.
    """
    batch, height, width, fine = images.shape
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    padded = padded.reshape(batch, height // 2 + 1, 2, width // 2 + 1, 2, fine).transpose(0, 1, 3, 2, 4, 5)
    return padded.reshape(batch, height // 2 + 1, width // 2 + 1, 4 * fine)


def _input_pullback(features: Array, kernel: Array) -> Array:
    # Output pixel 2i + a - 1 receives kernel row a + 2t from feature row i - t. So for each of the 2x2 output phases
    # the transpose is a 2x2 convolution over the features, and the four phases together are one convolution to four
    # times the channels, followed by depth-to-space and the crop of the padding.
    batch, height, width, coarse = features.shape
    fine = kernel.shape[2]
    phases = kernel.reshape(2, 2, 2, 2, fine, coarse)[::-1, :, ::-1]  # [t, a, u, b, fine, coarse], t and u reversed
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, coarse, 4 * fine)
    blocks = lax.conv_general_dilated(features, phases, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS)
    blocks = blocks.reshape(batch, height + 1, width + 1, 2, 2, fine).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height + 2, 2 * width + 2, fine)[:, 1:-1, 1:-1]


def _weight_pullback(images: Array, features: Array) -> Array:
    if images.shape[-1] <= FEW_CHANNELS:
        fine, (batch, height, width, coarse) = images.shape[-1], features.shape
        blocks = _blocks(images)
        shifted = [blocks[:, t : t + height, u : u + width] for t in (0, 1) for u in (0, 1)]
        patches = jnp.stack(shifted, axis=3).reshape(batch * height * width, 16 * fine)
        kernel = (patches.T @ features.reshape(-1, coarse)).reshape(2, 2, 2, 2, fine, coarse)
        return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(KERNEL, KERNEL, fine, coarse)
    # Every kernel element is a sum over the batch and all positions of features: a convolution of the images with the
    # features as its kernel, dilated by the stride, where the batch takes the place of the contracted channels. The
    # transpositions are explicit because inside a loop XLA's CPU compiler does not put them in by itself, and a
    # convolution in any other layout is 100 times slower there.
    images, features = images.transpose(3, 1, 2, 0), features.transpose(1, 2, 0, 3)
    pads, dilation = ((PADDING, PADDING), (PADDING, PADDING)), (STRIDE, STRIDE)
    kernel = lax.conv_general_dilated(
        images, features, (1, 1), pads, rhs_dilation=dilation, dimension_numbers=_DIMENSIONS
    )
    return kernel.transpose(1, 2, 0, 3)


convolve.defvjp(
    lambda images, kernel: (convolve(images, kernel), (images, kernel)),
    lambda saved, cotangent: (convolve_transposed(cotangent, saved[1]), _weight_pullback(saved[0], cotangent)),
)
convolve_transposed.defvjp(
    lambda features, kernel: (convolve_transposed(features, kernel), (features, kernel)),
    lambda saved, cotangent: (convolve(cotangent, saved[1]), _weight_pullback(cotangent, saved[0])),
)


@jax.custom_jvp
def leaky_relu(features: Array) -> Array:
    """max(x, 0.01 x)."""
    return jnp.maximum(features, 0.01 * features)


@leaky_relu.defjvp
def _leaky_relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The slope is read off the sign of the output, which is kept for the next layer anyway; the derivative of a maximum
    # would keep the input too, and split the slope evenly where both arguments tie.
    (features,), (tangent,) = primals, tangents
    activated = leaky_relu(features)
    return activated, jnp.where(activated > 0, tangent, 0.01 * tangent)
