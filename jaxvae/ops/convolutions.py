"""The strided convolution of the encoder and its transpose, the layer of the decoder.

Both are one triple of linear maps that share a kernel k [h, w, fine, coarse]:

    F(x, k)  convolve               [B, H, W, fine]    -> [B, H/2, W/2, coarse]
    I(y, k)  pull back to the input [B, H/2, W/2, coarse] -> [B, H, W, fine]
    W(x, y)  pull back to the kernel                   -> [h, w, fine, coarse]

`convolve` is F with the pullbacks I and W. `convolve_transposed` is I with the pullbacks F and W, its two arrays
exchanged. Left to itself, XLA derives the weight gradient of the transposed layer from a dilated convolution, which on
a CPU is 10 to 40 times slower than W; so the rules are written out here.

The networks' case, a kernel of 4, a stride of 2, a padding of 1 and even sizes, comes in the forms that ran fastest;
every other case is XLA's own convolution and its transposes.

          up to 4 fine channels    more: large batch, processor, 32 bits  otherwise
    F     product with patches     Winograd's nine products               plain
    I     product and overlap-add  Winograd's from 17 channels on         where 4 fine <= coarse as on the left,
                                                                          else a 2x2 convolution to four phases
    W     product with patches     Winograd's nine products               convolution with explicit transpositions

The numbers are the same to rounding; what was measured is in experiments/results/performance-log.md. Derivatives are
taken backwards, as often as one likes; `jax.jvp` is refused.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.ops import winograd
from jaxvae.types import Array

KERNEL, STRIDE, PADDING = 4, 2, 1
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(images: Array, kernel: Array, stride: int = STRIDE, padding: int = PADDING) -> Array:
    """A strided convolution: F in the module's notes.

    Args:
      images: [B, H, W, fine].
      kernel: [h, w, fine, coarse].
      stride, padding: of both dimensions; zeros are padded.
    Returns:
      [B, (H + 2 padding - h) // stride + 1, the like of W, coarse]; half of H and W by default.
    """
    return _convolution(images, kernel, stride, padding)


def convolve_transposed(
    features: Array,
    kernel: Array,
    stride: int = STRIDE,
    padding: int = PADDING,
    output_padding: tuple[int, int] = (0, 0),
) -> Array:
    """The transpose of `convolve`, with the same kernel: I in the module's notes.

    Args:
      features: [B, H, W, coarse].
      kernel: [h, w, fine, coarse], laid out as the kernel of the convolution this is the transpose of.
      stride, padding: of that convolution.
      output_padding: rows and columns that the convolution leaves out at the end, less than stride each.
    Returns:
      [B, (H - 1) stride + h - 2 padding + output_padding, the like of W, fine]; twice H and W by default.
    """
    return _transposed_convolution(features, kernel, stride, padding, output_padding)


def _forward(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    if not _halves(images.shape, kernel.shape, stride, padding):
        return _plain(images, kernel, stride, padding)
    batch, height, width, fine = images.shape
    shape = (batch, height // 2, width // 2, kernel.shape[3])
    if fine <= 4:
        return (_patches(images) @ winograd.taps(kernel).reshape(16 * fine, -1)).reshape(shape)
    if _many(shape, images.dtype):
        return lax.platform_dependent(images, kernel, cpu=winograd.forward, default=_plain)
    return _plain(images, kernel)


def _input_pullback(
    features: Array, kernel: Array, stride: int, padding: int, output_padding: tuple[int, int]
) -> Array:
    sizes = [
        (size - 1) * stride + extent - 2 * padding + extra
        for size, extent, extra in zip(features.shape[1:3], kernel.shape, output_padding, strict=False)
    ]
    fine, coarse = kernel.shape[2:]
    shape = (len(features), *sizes, fine)
    if not _halves(shape, kernel.shape, stride, padding):
        images = jax.ShapeDtypeStruct(shape, features.dtype)
        return jax.linear_transpose(lambda images: _plain(images, kernel, stride, padding), images)(features)[0]
    usual = _overlap_added if 4 * fine <= coarse else _by_phases
    # What Winograd's form adds up afterwards grows with the image, so that with few fine channels it costs the gain.
    if fine > 16 and _many(features.shape, features.dtype):
        return lax.platform_dependent(features, kernel, cpu=winograd.input_pullback, default=usual)
    return usual(features, kernel)


def _overlap_added(features: Array, kernel: Array) -> Array:
    # One product gives what every feature sends to its 4x4 pixels; the four that meet in a pixel are then summed. The
    # kernel is used as it lies, and no product is wasted on the border. Few channels are best done so.
    (batch, height, width, coarse), fine = features.shape, kernel.shape[2]
    sent = features.reshape(-1, coarse) @ kernel.reshape(-1, coarse).T
    rows = _pixel_pair(sent.reshape(batch, height, width, 4, 4, fine), 1)
    return winograd.joined([_pixel_pair(row, 2) for row in rows])


def _pixel_pair(sent: Array, axis: int) -> tuple[Array, Array]:
    """Pixels 2i and 2i + 1 along an axis, from what is sent to the four 2i - 1 to 2i + 2, the fourth axis."""
    # Shifts, not one sum over the padded image: that would keep four arrays of its size for as long as its pixels are
    # needed, and past 32 MiB of intermediate results glibc's malloc asks the system anew in every call of a program.
    even = sent[:, :, :, 1] + _shifted(sent[:, :, :, 3], 1, axis)
    odd = sent[:, :, :, 2] + _shifted(sent[:, :, :, 0], -1, axis)
    return even, odd


def _shifted(array: Array, by: int, axis: int) -> Array:
    """Moved along an axis, with zeros where there was none."""
    edges = [(by, -by, 0) if dimension == axis else (0, 0, 0) for dimension in range(array.ndim)]
    return lax.pad(array, jnp.zeros((), array.dtype), edges)


def _by_phases(features: Array, kernel: Array) -> Array:
    # For each of the 2x2 phases a, b the transpose is a 2x2 convolution over the features, and the four together are
    # one to four times the channels. What is written is smaller than above by 4.
    fine, coarse = kernel.shape[2:]
    phases = kernel.reshape(2, 2, 2, 2, fine, coarse)[::-1, :, ::-1]  # [t, a, u, b, fine, coarse], t, u reversed
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, coarse, 4 * fine)
    blocks = lax.conv_general_dilated(features, phases, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS)
    batch, rows, columns, _ = blocks.shape
    pixels = blocks.reshape(batch, rows, columns, 2, 2, fine).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, fine)[:, 1:-1, 1:-1]


def _weight_pullback(images: Array, features: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """W, [h, w, fine, coarse] = shape."""
    if not _halves(images.shape, shape, stride, padding):
        kernel = jax.ShapeDtypeStruct(shape, images.dtype)
        return jax.linear_transpose(lambda kernel: _plain(images, kernel, stride, padding), kernel)(features)[0]
    fine, coarse = shape[2:]
    if fine <= 4:
        return winograd.kernel_of(_patches(images).T @ features.reshape(-1, coarse))
    if _many(features.shape, features.dtype):
        return lax.platform_dependent(images, features, cpu=winograd.weight_pullback, default=_weights_transposed)
    return _weights_transposed(images, features)


def _weights_transposed(images: Array, features: Array) -> Array:
    # Every kernel element is a sum over the batch and all positions of features: a convolution of the images with the
    # features as its kernel, where the batch takes the place of the contracted channels. The transpositions are
    # explicit because inside a loop XLA's CPU compiler does not put them in by itself, and a convolution in any other
    # layout is 100 times slower there.
    kernel = lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        features.transpose(1, 2, 0, 3),
        (1, 1),
        ((PADDING, PADDING), (PADDING, PADDING)),
        rhs_dilation=(STRIDE, STRIDE),
        dimension_numbers=_DIMENSIONS,
    )
    return kernel.transpose(1, 2, 0, 3)


def _halves(images: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether shapes are those of the networks: a 4x4 kernel that halves an even size."""
    even = images[1] % 2 == 0 and images[2] % 2 == 0
    return even and (kernel[0], kernel[1], stride, padding) == (KERNEL, KERNEL, STRIDE, PADDING)


def _many(features: tuple[int, ...], dtype: Any) -> bool:
    """Whether there are enough features for Winograd's sums to cost less than the products they spare."""
    # What is summed first is rounded before it is multiplied: in 16 bits scores would depend on the size of the batch.
    return math.prod(features) >= 2**16 and jnp.finfo(dtype).bits >= 32


def _plain(images: Array, kernel: Array, stride: int = STRIDE, padding: int = PADDING) -> Array:
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS)


def _patches(images: Array) -> Array:
    """[B H/2 W/2, 16 c]: the pixels that meet the kernel at each position of F, as four blocks."""
    batch, height, width, fine = images.shape
    blocks = winograd.blocks(images)
    shifted = [blocks[:, t : t + height // 2, u : u + width // 2] for t in (0, 1) for u in (0, 1)]
    return jnp.stack(shifted, axis=3).reshape(batch * height * width // 4, 16 * fine)


def _convolution_pullback(
    stride: int, padding: int, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    images, kernel = saved
    (_, height, width, _), (rows, columns, _, _) = images.shape, kernel.shape
    left_out = ((height + 2 * padding - rows) % stride, (width + 2 * padding - columns) % stride)
    return (
        convolve_transposed(cotangent, kernel, stride, padding, left_out),
        _weight_pullback(images, cotangent, kernel.shape, stride, padding),
    )


def _transposed_convolution_pullback(
    stride: int, padding: int, output_padding: tuple[int, int], saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    features, kernel = saved
    return (
        convolve(cotangent, kernel, stride, padding),
        _weight_pullback(cotangent, features, kernel.shape, stride, padding),
    )


_convolution = jax.custom_vjp(_forward, nondiff_argnums=(2, 3))
_convolution.defvjp(
    lambda images, kernel, *static: (_convolution(images, kernel, *static), (images, kernel)), _convolution_pullback
)
_transposed_convolution = jax.custom_vjp(_input_pullback, nondiff_argnums=(2, 3, 4))
_transposed_convolution.defvjp(
    lambda features, kernel, *static: (_transposed_convolution(features, kernel, *static), (features, kernel)),
    _transposed_convolution_pullback,
)
