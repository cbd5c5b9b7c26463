"""The three maps of `jaxvae.ops.convolutions` as matrix products with patches of 4x4 pixels.

A patch has the order of the kernel, so the kernel is used as it is stored.
"""

import jax.numpy as jnp

from jaxvae.ops.pixels import interleaved, pixel_pair, taps_of, unstacked, widened
from jaxvae.types import Array


def forward(images: Array, kernel: Array) -> Array:
    """F: [B, H, W, fine], [4, 4, fine, coarse] -> [B, H/2, W/2, coarse]; H, W even."""
    (batch, height, width, fine), coarse = images.shape, kernel.shape[3]
    products = patches(images) @ kernel.reshape(16 * fine, coarse)
    return products.reshape(batch, height // 2, width // 2, coarse)


def input_pullback(features: Array, kernel: Array) -> Array:
    """I: [B, H, W, coarse], [4, 4, fine, coarse] -> [B, 2 H, 2 W, fine].

    One product gives the 4x4 contributions of each feature to the pixels; the four contributions to each pixel are
    then added. This needs no other layout of the kernel and no products at the border. This suits few channels.
    """
    (batch, height, width, coarse), fine = features.shape, kernel.shape[2]
    sent = features.reshape(batch * height * width, coarse) @ kernel.reshape(16 * fine, coarse).T
    sent = widened(sent.reshape(batch, height, width, 4, 4, fine))
    rows = pixel_pair(unstacked(sent, 3), 1)
    pixels = interleaved([pixel_pair(unstacked(row, 3), 2) for row in rows])
    return pixels.astype(features.dtype)


def input_pullback_in_planes(features: Array, kernel: Array) -> Array:
    """`input_pullback` with the taps first, so that whole planes are added. This suits one channel on a GPU."""
    (batch, height, width, coarse), fine = features.shape, kernel.shape[2]
    sent = kernel.reshape(16 * fine, coarse) @ features.reshape(batch * height * width, coarse).T
    sent = widened(sent.reshape(4, 4, fine, batch, height, width))
    rows = pixel_pair(unstacked(sent, 0), 3)
    pixels = interleaved([[jnp.moveaxis(pixel, 0, 3) for pixel in pixel_pair(unstacked(row, 0), 3)] for row in rows])
    return pixels.astype(features.dtype)


def weight_pullback(images: Array, features: Array) -> Array:
    """W: [B, H, W, fine], [B, H/2, W/2, coarse] -> [4, 4, fine, coarse]; H, W even."""
    batch, height, width, coarse = features.shape
    products = patches(images).T @ features.reshape(batch * height * width, coarse)
    return products.reshape(4, 4, images.shape[3], coarse)


def patches(images: Array) -> Array:
    """[B H/2 W/2, 16 c]: the pixels under the kernel at each position of F."""
    batch, height, width, channels = images.shape
    return jnp.stack(taps_of(images), axis=3).reshape(batch * height * width // 4, 16 * channels)
