"""The strided convolution of the encoder, and its transpose for the decoder.

Both use three linear maps with a kernel k [h, w, fine, coarse]:

    F(x, k)  convolve               [B, H, W, fine]       -> [B, H/2, W/2, coarse]
    I(y, k)  pull back to the input [B, H/2, W/2, coarse] -> [B, H, W, fine]
    W(x, y)  pull back to the kernel                      -> [h, w, fine, coarse]

`convolve` is F with the pullbacks I and W. `convolve_transposed` is I with the pullbacks F and W, with the two arrays
exchanged. This module defines the pullbacks, because XLA would derive the weight gradient of the transposed layer from
a dilated convolution. On a CPU that is 10 to 40 times slower than W.

The networks use a kernel of 4, a stride of 2, a padding of 1 and even sizes. `jaxvae.ops.forms` has the fastest form of
each map on each platform for this case. All other cases use XLA's convolution and its transposes. The results are the
same to rounding. Reverse-mode derivatives of any order work; forward mode (`jax.jvp`) does not.
"""

import math
from functools import partial
from typing import Any

import jax

from jaxvae.ops import plain
from jaxvae.ops.forms import Sizes, by_platform
from jaxvae.ops.plain import KERNEL, PADDING, STRIDE
from jaxvae.types import Array


def _by_platform(name: str, fine: tuple[int, ...], coarse: tuple[int, ...], *arrays: Array) -> Array:
    """One of the maps in the form of the platform that the program is compiled for."""
    sizes = Sizes(coarse[0], fine[-1], coarse[-1], math.prod(coarse), 8 * arrays[0].dtype.itemsize)
    return by_platform(lambda platform: getattr(platform.convolutions(sizes), name), *arrays)


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
        return plain.forward(images, kernel, stride, padding)
    batch, height, width, _ = images.shape
    return _by_platform("forward", images.shape, (batch, height // 2, width // 2, kernel.shape[3]), images, kernel)


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
    shape = (len(features), *sizes, kernel.shape[2])
    if not _halves(shape, kernel.shape, stride, padding):
        settings = {"shape": shape, "stride": stride, "padding": padding}
        return by_platform(lambda platform: platform.transposed, features, kernel, **settings)
    return _by_platform("input_pullback", shape, features.shape, features, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _kernel_gradient(images: Array, features: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """W: [h, w, fine, coarse], which is `shape`."""
    if not _halves(images.shape, shape, stride, padding):
        return plain.weight_pullback_transposed(images, features, shape[:2], stride, padding)
    return _by_platform("weight_pullback", images.shape, features.shape, images, features)


def _halves(images: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int) -> bool:
    """Whether this is the networks' case: a 4x4 kernel that halves even sizes."""
    even = images[1] % 2 == 0 and images[2] % 2 == 0
    return even and (kernel[0], kernel[1], stride, padding) == (KERNEL, KERNEL, STRIDE, PADDING)


def _convolution_pullback(
    stride: int, padding: int, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    images, kernel = saved
    to_kernel: Any = _kernel_gradient(images, cotangent, kernel.shape, stride, padding)
    return _pulled_to(images, cotangent, kernel, stride, padding), to_kernel


def _transposed_convolution_pullback(
    stride: int, padding: int, output_padding: tuple[int, int], saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    features, kernel = saved
    to_features: Any = convolve(cotangent, kernel, stride, padding)
    to_kernel: Any = _kernel_gradient(cotangent, features, kernel.shape, stride, padding)
    return to_features, to_kernel


def _kernel_gradient_pullback(
    shape: tuple[int, ...], stride: int, padding: int, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    images, features = saved
    to_features: Any = convolve(images, cotangent, stride, padding)
    return _pulled_to(images, features, cotangent, stride, padding), to_features


def _pulled_to(images: Array, features: Array, kernel: Array, stride: int, padding: int) -> Array:
    """I, with the shape of the images."""
    sizes = zip(images.shape[1:3], kernel.shape, strict=False)
    left_out = tuple((size + 2 * padding - extent) % stride for size, extent in sizes)
    pulled: Any = convolve_transposed(features, kernel, stride, padding, left_out)
    return pulled


convolve.defvjp(lambda *arguments: (convolve(*arguments), arguments[:2]), _convolution_pullback)
convolve_transposed.defvjp(
    lambda *arguments: (convolve_transposed(*arguments), arguments[:2]), _transposed_convolution_pullback
)
_kernel_gradient.defvjp(lambda *arguments: (_kernel_gradient(*arguments), arguments[:2]), _kernel_gradient_pullback)
