"""One triple of linear maps: held against XLA's plain convolution, against float64, and against each other."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax import lax

import oracle
from jaxvae.convolutions import convolve, convolve_transposed, leaky_relu

SIZES = [(2, 2, 1, 1), (4, 6, 3, 5), (16, 8, 2, 7), (32, 32, 1, 16), (8, 4, 6, 9)]  # Up to four fine channels, and more


def draw(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def plain(images, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=dimensions)


def assert_close(got, expected, tolerance=1e-5):
    scale = max(float(np.max(np.abs(np.asarray(expected)))), 1e-30)
    np.testing.assert_allclose(got, expected, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize(("height", "width", "fine", "coarse"), SIZES)
def test_both_layers_against_float64(height, width, fine, coarse):
    images, kernel = draw(2, height, width, fine), draw(4, 4, fine, coarse, seed=1)
    features = draw(2, height // 2, width // 2, coarse, seed=2)
    assert_close(
        convolve(images, kernel)[1], oracle.convolve(*(np.asarray(a, np.float64) for a in (images[1], kernel)))
    )
    expected = oracle.convolve_transposed(*(np.asarray(a, np.float64) for a in (features[1], kernel)))
    assert_close(convolve_transposed(features, kernel)[1], expected)


@pytest.mark.parametrize(("height", "width", "fine", "coarse"), SIZES)
def test_every_pullback_is_that_of_the_plain_convolution(height, width, fine, coarse):
    images, kernel = draw(3, height, width, fine), draw(4, 4, fine, coarse, seed=1)
    cotangent = draw(3, height // 2, width // 2, coarse, seed=2)
    for got, expected in zip(
        jax.vjp(convolve, images, kernel)[1](cotangent), jax.vjp(plain, images, kernel)[1](cotangent), strict=True
    ):
        assert_close(got, expected)
    transposed = jax.linear_transpose(lambda x: plain(x, kernel), images)
    assert_close(convolve_transposed(cotangent, kernel), transposed(cotangent)[0])


def test_the_transposed_layer_is_the_adjoint():
    images, kernel, features = draw(2, 8, 12, 3), draw(4, 4, 3, 5, seed=1), draw(2, 4, 6, 5, seed=2)
    left = (convolve(images, kernel) * features).sum()
    right = (images * convolve_transposed(features, kernel)).sum()
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.parametrize("fine", [3, 6])
@pytest.mark.parametrize("layer", [convolve, convolve_transposed])
def test_second_derivatives(layer, fine):
    data = draw(2, 4, 4, fine) if layer is convolve else draw(2, 4, 4, 5)
    kernel = draw(4, 4, fine, 5, seed=1)

    def plain_layer(data, kernel):
        if layer is convolve:
            return plain(data, kernel)
        shape = jax.ShapeDtypeStruct((2, 8, 8, fine), data.dtype)
        return jax.linear_transpose(lambda x: plain(x, kernel), shape)(data)[0]

    def penalty(function):
        return lambda data, kernel: (jax.grad(lambda d: (function(d, kernel) ** 3).sum())(data) ** 2).sum()

    got = jax.grad(penalty(layer), argnums=(0, 1))(data, kernel)
    expected = jax.grad(penalty(plain_layer), argnums=(0, 1))(data, kernel)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, 1e-4)


def test_vmap_over_weights_and_over_images_equals_a_loop():
    images, kernels = draw(3, 2, 8, 8, 2), draw(3, 4, 4, 2, 5, seed=1)
    assert_close(
        jax.vmap(convolve)(images, kernels), np.stack([convolve(x, k) for x, k in zip(images, kernels, strict=True)])
    )
    features = draw(3, 2, 4, 4, 5, seed=2)
    looped = np.stack([convolve_transposed(y, k) for y, k in zip(features, kernels, strict=True)])
    assert_close(jax.vmap(convolve_transposed)(features, kernels), looped)


def test_leaky_relu_and_its_slope():
    x = np.array([-2.0, -0.5, 0.5, 2.0], np.float32)
    np.testing.assert_allclose(leaky_relu(x), oracle.leaky_relu(x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(leaky_relu))(x), [0.01, 0.01, 1, 1])
