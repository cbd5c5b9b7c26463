"""The three linear maps against XLA's convolution, float64 and each other."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

import oracle
from convolution_cases import (
    assert_second_derivatives,
    convolve,
    convolve_transposed,
    draw,
    plain,
    plain_transposed,
)
from jaxvae.ops.plain import forward, transposed, transposed_by_phases, transposed_with_flips
from oracle import assert_close

pytestmark = pytest.mark.optimized

# Height, width, fine and coarse channels: one case for each form.
SIZES = [(2, 2, 1, 1), (4, 6, 3, 5), (16, 8, 2, 7), (32, 32, 1, 16), (8, 4, 6, 9), (6, 10, 3, 12), (4, 8, 34, 3)]
# The same with kernel, stride and padding: odd sizes, and layers that the networks do not have.
GENERAL = [
    (7, 9, 3, 5, 4, 2, 1),
    (8, 7, 2, 3, 4, 2, 1),
    (8, 8, 3, 5, 3, 1, 1),
    (9, 8, 3, 5, 3, 2, 0),
    (10, 11, 2, 3, 5, 3, 2),
    (8, 12, 3, 5, 5, 2, 2),
    (10, 8, 2, 3, 3, 2, 1),
    (8, 6, 2, 3, 6, 2, 3),
    (6, 8, 2, 3, 2, 2, 0),
]


@pytest.mark.parametrize(("height", "width", "fine", "coarse"), SIZES)
def test_both_layers_match_float64(height, width, fine, coarse):
    images, kernel = draw(2, height, width, fine), draw(4, 4, fine, coarse, seed=1)
    features = draw(2, height // 2, width // 2, coarse, seed=2)
    assert_close(
        convolve(images, kernel)[1], oracle.convolve(*(np.asarray(a, np.float64) for a in (images[1], kernel)))
    )
    expected = oracle.convolve_transposed(*(np.asarray(a, np.float64) for a in (features[1], kernel)))
    assert_close(convolve_transposed(features, kernel)[1], expected)


@pytest.mark.parametrize(("height", "width", "fine", "coarse"), SIZES)
def test_pullbacks_equal_those_of_the_plain_convolution(height, width, fine, coarse):
    images, kernel = draw(3, height, width, fine), draw(4, 4, fine, coarse, seed=1)
    cotangent = draw(3, height // 2, width // 2, coarse, seed=2)
    for got, expected in zip(
        jax.vjp(convolve, images, kernel)[1](cotangent), jax.vjp(plain, images, kernel)[1](cotangent), strict=True
    ):
        assert_close(got, expected)
    assert_close(convolve_transposed(cotangent, kernel), plain_transposed(cotangent, kernel))


@pytest.mark.parametrize(("height", "width", "fine", "coarse", "extent", "stride", "padding"), GENERAL)
def test_other_kernels_strides_and_sizes(height, width, fine, coarse, extent, stride, padding):
    images, kernel = draw(2, height, width, fine), draw(extent, extent, fine, coarse, seed=1)

    def layer(images, kernel):
        return convolve(images, kernel, stride, padding)

    def plain_layer(images, kernel):
        return plain(images, kernel, stride, padding)

    expected, plain_pullback = jax.vjp(plain_layer, images, kernel)
    got, pullback = jax.vjp(layer, images, kernel)
    assert_close(got, expected)
    cotangent = draw(*expected.shape, seed=2)
    for a, b in zip(pullback(cotangent), plain_pullback(cotangent), strict=True):
        assert_close(a, b)
    # The transposed layer with output padding, and both of its pullbacks.
    left_out = tuple((size + 2 * padding - extent) % stride for size in (height, width))
    transposed, pullback = jax.vjp(
        lambda features, kernel: convolve_transposed(features, kernel, stride, padding, left_out), cotangent, kernel
    )
    assert_close(transposed, plain_pullback(cotangent)[0])
    to_features, to_kernel = pullback(images)
    assert_close(to_features, expected)
    assert_close(to_kernel, jax.vjp(plain_layer, images, kernel)[1](cotangent)[1])


@pytest.mark.parametrize(("height", "width", "fine", "coarse", "extent", "stride", "padding"), GENERAL)
def test_the_forms_of_the_transpose_are_equal(height, width, fine, coarse, extent, stride, padding):
    kernel, shape = draw(extent, extent, fine, coarse, seed=1), (2, height, width, fine)
    features = draw(*jax.eval_shape(partial(forward, stride=stride, padding=padding), draw(*shape), kernel).shape)
    expected = transposed(features, kernel, shape, stride, padding)
    assert_close(transposed_with_flips(features, kernel, shape, stride, padding), expected)
    if (stride, height % 2, width % 2) == (2, 0, 0):
        assert_close(transposed_by_phases(features, kernel, shape, padding), expected)


def test_the_transposed_layer_is_the_adjoint():
    images, kernel, features = draw(2, 8, 12, 3), draw(4, 4, 3, 5, seed=1), draw(2, 4, 6, 5, seed=2)
    left = (convolve(images, kernel) * features).sum()
    right = (images * convolve_transposed(features, kernel)).sum()
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.parametrize("fine", [1, 3, 34])  # each form of each map
@pytest.mark.parametrize("layer", [convolve, convolve_transposed])
def test_second_derivatives_equal_those_of_the_plain_layer(layer, fine):
    data = draw(2, 4, 4, fine) if layer is convolve else draw(2, 4, 4, 5)
    assert_second_derivatives(layer, data, draw(4, 4, fine, 5, seed=1))


def test_vmap_over_weights_and_over_images_equals_a_loop():
    images, kernels = draw(3, 2, 8, 8, 2), draw(3, 4, 4, 2, 5, seed=1)
    assert_close(
        jax.vmap(convolve)(images, kernels), np.stack([convolve(x, k) for x, k in zip(images, kernels, strict=True)])
    )
    features = draw(3, 2, 4, 4, 5, seed=2)
    looped = np.stack([convolve_transposed(y, k) for y, k in zip(features, kernels, strict=True)])
    assert_close(jax.vmap(convolve_transposed)(features, kernels), looped)
