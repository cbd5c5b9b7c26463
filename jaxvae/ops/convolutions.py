"""The strided convolution of the encoder, and its transpose for the decoder.

Both use three linear maps with a kernel k [h, w, fine, coarse]:

    F(x, k)  convolve               [B, H, W, fine]       -> [B, H/2, W/2, coarse]
    I(y, k)  pull back to the input [B, H/2, W/2, coarse] -> [B, H, W, fine]
    W(x, y)  pull back to the kernel                      -> [h, w, fine, coarse]

`convolve` is F with the pullbacks I and W. `convolve_transposed` is I with the pullbacks F and W, with the two arrays
exchanged. XLA would derive the weight gradient of the transposed layer from a dilated convolution. On a CPU that is 10
to 40 times slower than W, so this module defines the pullbacks.

The networks use a kernel of 4, a stride of 2, a padding of 1 and even sizes. This case has the fastest forms that we
measured (below). All other cases use XLA's convolution and its transposes.

          up to 4 fine channels    more: large batch, CPU, 32 bits        otherwise
    F     product with patches     Winograd's nine products               plain
    I     product and overlap-add  Winograd's from 17 channels on         if 4 fine <= coarse as on the left,
                                                                          else a 2x2 convolution to four phases
    W     product with patches     Winograd's nine products               convolution with explicit transpositions

The results are the same to rounding. The measurements are in experiments/results/performance-log.md. Reverse-mode
derivatives of any order work; forward mode (`jax.jvp`) does not.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxvae.ops import winograd
from jaxvae.types import Array

KERNEL, STRIDE, PADDING = 4, 2, 1
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(images: Array, kernel: Array, stride: int = STRIDE, padding: int = PADDING) -> Array:
    """A strided convolution: F in the notes of this module.

    Args:
      images: [B, H, W, fine].
      kernel: [h, w, fine, coarse].
      stride, padding: of both dimensions; the padding is zeros.

    Returns:
      [B, (H + 2 padding - h) // stride + 1, the same of W, coarse]; half of H and W by default.
    """
    if not _halves(images.shape, kernel.shape, stride, padding):
        return _plain(images, kernel, stride, padding)
    batch, height, width, fine = images.shape
    shape = (batch, height // 2, width // 2, kernel.shape[3])
    if fine <= 4:
        return (_patches(images) @ winograd.taps(kernel).reshape(16 * fine, -1)).reshape(shape)
    if _many(shape, images.dtype):
        return lax.platform_dependent(images, kernel, cpu=winograd.forward, default=_plain)
    return _plain(images, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve_transposed(
    features: Array,
    kernel: Array,
    stride: int = STRIDE,
    padding: int = PADDING,
    output_padding: tuple[int, int] = (0, 0),
) -> Array:
    """The transpose of `convolve` with its kernel: I in the notes of this module.

    Args:
      features: [B, H, W, coarse].
      kernel: [h, w, fine, coarse], the kernel of `convolve`.
      stride, padding: of `convolve`.
      output_padding: rows and columns that `convolve` ignores at the end, fewer than stride each.

    Returns:
      [B, (H - 1) stride + h - 2 padding + output_padding, the same of W, fine]; twice H and W by default.
    """
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
    # The additions after Winograd's products grow with the image. With few fine channels they cost more than they save.
    if fine > 16 and _many(features.shape, features.dtype):
        return lax.platform_dependent(features, kernel, cpu=winograd.input_pullback, default=usual)
    return usual(features, kernel)


def _overlap_added(features: Array, kernel: Array) -> Array:
    # One product gives the 4x4 contributions of each feature to the pixels; the four contributions to each pixel are
    # then added. This needs no other layout of the kernel and no products at the border. This suits few channels.
    (batch, height, width, coarse), fine = features.shape, kernel.shape[2]
    sent = features.reshape(-1, coarse) @ kernel.reshape(-1, coarse).T
    rows = _pixel_pair(sent.reshape(batch, height, width, 4, 4, fine), 1)
    return winograd.joined([_pixel_pair(row, 2) for row in rows])


def _pixel_pair(sent: Array, axis: int) -> tuple[Array, Array]:
    """Pixels 2i and 2i + 1 of an axis; axis 3 is contributions to 2i - 1 .. 2i + 2."""
    # These are shifts, not one sum over the padded image, which would keep four arrays of its size. Above 32 MiB of
    # intermediate results, glibc requests the memory from the system again in each call of a program.
    even = sent[:, :, :, 1] + _shifted(sent[:, :, :, 3], 1, axis)
    odd = sent[:, :, :, 2] + _shifted(sent[:, :, :, 0], -1, axis)
    return even, odd


def _shifted(array: Array, by: int, axis: int) -> Array:
    """Shift along an axis and fill with zeros."""
    edges = [(by, -by, 0) if dimension == axis else (0, 0, 0) for dimension in range(array.ndim)]
    return lax.pad(array, jnp.zeros((), array.dtype), edges)


def _by_phases(features: Array, kernel: Array) -> Array:
    # For each of the 2x2 phases a, b, the transpose is a 2x2 convolution over the features. The four phases are one
    # convolution with four times the output channels. It writes a quarter of what `_overlap_added` writes.
    fine, coarse = kernel.shape[2:]
    phases = kernel.reshape(2, 2, 2, 2, fine, coarse)[::-1, :, ::-1]  # [t, a, u, b, fine, coarse], t, u reversed
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(2, 2, coarse, 4 * fine)
    blocks = lax.conv_general_dilated(features, phases, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS)
    batch, rows, columns, _ = blocks.shape
    pixels = blocks.reshape(batch, rows, columns, 2, 2, fine).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * rows, 2 * columns, fine)[:, 1:-1, 1:-1]


def _weight_pullback(images: Array, features: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """W: [h, w, fine, coarse], which is `shape`."""
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
    # Each kernel element is a sum over the batch and all positions: a convolution of the images with the features as
    # kernel, which contracts the batch instead of the channels. The transpositions are explicit because XLA's CPU
    # compiler does not insert them inside a loop. There, a convolution in any other layout is 100 times slower.
    images, features = images.transpose(3, 1, 2, 0), features.transpose(1, 2, 0, 3)
    apart, pads = (STRIDE, STRIDE), ((PADDING, PADDING), (PADDING, PADDING))
    kernel = lax.conv_general_dilated(images, features, (1, 1), pads, rhs_dilation=apart, dimension_numbers=_DIMENSIONS)
    return kernel.transpose(1, 2, 0, 3)


def _halves(images: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether this is the networks' case: a 4x4 kernel that halves even sizes."""
    even = images[1] % 2 == 0 and images[2] % 2 == 0
    return even and (kernel[0], kernel[1], stride, padding) == (KERNEL, KERNEL, STRIDE, PADDING)


def _many(features: tuple[int, ...], dtype: Any) -> bool:
    """Whether there are enough features for Winograd's form to be faster."""
    # Winograd's form rounds sums before it multiplies them. In 16 bits, scores would depend on the batch size.
    return math.prod(features) >= 2**16 and jnp.finfo(dtype).bits >= 32


def _plain(images: Array, kernel: Array, stride: int = STRIDE, padding: int = PADDING) -> Array:
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=_DIMENSIONS)


def _patches(images: Array) -> Array:
    """[B H/2 W/2, 16 c]: the pixels under the kernel at each position of F."""
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
    to_images: Any = convolve_transposed(cotangent, kernel, stride, padding, left_out)
    return to_images, _weight_pullback(images, cotangent, kernel.shape, stride, padding)


def _transposed_convolution_pullback(
    stride: int, padding: int, output_padding: tuple[int, int], saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    features, kernel = saved
    to_features: Any = convolve(cotangent, kernel, stride, padding)
    return to_features, _weight_pullback(cotangent, features, kernel.shape, stride, padding)


convolve.defvjp(lambda *arguments: (convolve(*arguments), arguments[:2]), _convolution_pullback)
convolve_transposed.defvjp(
    lambda *arguments: (convolve_transposed(*arguments), arguments[:2]), _transposed_convolution_pullback
)
