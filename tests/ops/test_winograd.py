"""Winograd's forms of the three maps against float64, each other and plain forms."""

from __future__ import annotations

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
from jaxvae.ops import winograd
from oracle import assert_close

pytestmark = pytest.mark.optimized

# Height and width of the images: even and odd numbers of features along each axis.
SIZES = [(4, 4), (8, 12), (6, 8), (12, 2), (10, 6)]


forward, input_pullback, weight_pullback = map(
    jax.jit, (winograd.forward, winograd.input_pullback, winograd.weight_pullback)
)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_each_map_matches_float64(height, width):
    images, kernel = draw(3, height, width, 5), draw(4, 4, 5, 7, seed=1)
    features = draw(3, height // 2, width // 2, 7, seed=2)
    x, k, y = (np.asarray(array, np.float64) for array in (images, kernel, features))
    # Winograd's form rounds a few times more than the definition.
    assert_close(forward(images, kernel), np.stack([oracle.convolve(image, k) for image in x]), 2e-6)
    expected = np.stack([oracle.convolve_transposed(maps, k) for maps in y])
    assert_close(input_pullback(features, kernel), expected, 2e-6)
    # F is linear in the kernel, so W is F of each kernel element times the features.
    elements = np.eye(16 * 5).reshape(-1, 4, 4, 5, 1)
    met = [sum(np.einsum("hwi,hwo->o", oracle.convolve(a, e), b) for a, b in zip(x, y, strict=True)) for e in elements]
    assert_close(weight_pullback(images, features), np.reshape(met, (4, 4, 5, 7)), 2e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pullbacks_are_the_adjoints(height, width):
    images, kernel = draw(2, height, width, 3), draw(4, 4, 3, 4, seed=1)
    features = draw(2, height // 2, width // 2, 4, seed=2)
    met = (forward(images, kernel) * features).sum()
    np.testing.assert_allclose((images * input_pullback(features, kernel)).sum(), met, rtol=1e-4)
    np.testing.assert_allclose((kernel * weight_pullback(images, features)).sum(), met, rtol=1e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="used on CPUs only")
@pytest.mark.parametrize(("layer", "size"), [(convolve, 16), (convolve_transposed, 8)])
def test_only_large_batches_use_winograd(layer, size):
    kernel = draw(4, 4, 20, 32)

    def products(batch):
        data = draw(batch, size, size, 20 if layer is convolve else 32)
        return layer.lower(data, kernel).as_text().count("dot_general")

    assert products(32) == 9
    assert products(31) == 0


@pytest.mark.parametrize("layer", [convolve, convolve_transposed])
def test_a_large_batch_equals_the_plain_layers(layer):
    data = draw(64, 12, 16, 20) if layer is convolve else draw(64, 6, 8, 24)
    kernels = draw(2, 4, 4, 20, 24, seed=1)
    plain_layer = plain if layer is convolve else plain_transposed
    expected = np.stack([plain_layer(data, kernel) for kernel in kernels])
    assert_close(layer(data, kernels[0]), expected[0])
    assert_close(jax.vmap(layer, in_axes=(None, 0))(data, kernels), expected)
    assert_second_derivatives(layer, data, kernels[0])
