"""Convolutions that tests compare, and random arrays."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvae.ops import convolutions
from oracle import assert_close

# Compiled, because a program per operation would take a minute longer.
convolve = jax.jit(convolutions.convolve, static_argnums=(2, 3))
convolve_transposed = jax.jit(convolutions.convolve_transposed, static_argnums=(2, 3, 4))


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@partial(jax.jit, static_argnums=(2, 3))
def plain(images, kernel, stride=2, padding=1):
    dimensions, pads = ("NHWC", "HWIO", "NHWC"), ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=dimensions)


@jax.jit
def plain_transposed(features, kernel):
    batch, height, width, _ = features.shape
    images = jax.ShapeDtypeStruct((batch, 2 * height, 2 * width, kernel.shape[2]), features.dtype)
    return jax.linear_transpose(lambda x: plain(x, kernel), images)(features)[0]


def assert_second_derivatives(layer, data, kernel):
    """Compare the gradient of a gradient penalty with that of the plain layer."""

    def penalty(function):
        return lambda data, kernel: (jax.grad(lambda d: (function(d, kernel) ** 3).sum())(data) ** 2).sum()

    got = jax.jit(jax.grad(penalty(layer), argnums=(0, 1)))(data, kernel)
    plain_layer = plain if layer is convolve else plain_transposed
    expected = jax.jit(jax.grad(penalty(plain_layer), argnums=(0, 1)))(data, kernel)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, 1e-4)
