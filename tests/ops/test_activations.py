"""Activations against their definitions, and NaN."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxvae.ops.activations import leaky_relu, relu


@pytest.mark.parametrize(("activation", "below"), [(relu, 0.0), (leaky_relu, 0.01)])
def test_activations_have_the_exact_slope_and_value(activation, below):
    x = np.array([-2.0, -0.5, 0.0, 0.5, 2.0, np.inf], np.float32)
    np.testing.assert_allclose(activation(x), np.where(x > 0, x, np.float32(below) * np.minimum(x, 0)))
    slopes = np.where(x > 0, 1, below)
    np.testing.assert_allclose(jax.vmap(jax.grad(activation))(x), slopes)
    values, tangents = jax.jvp(activation, (x,), (np.full_like(x, 3),))
    np.testing.assert_array_equal(values, activation(x))
    np.testing.assert_allclose(tangents, 3 * slopes)


@pytest.mark.parametrize("activation", [relu, leaky_relu])
def test_nan_stays_nan(activation):
    value, pullback = jax.vjp(activation, np.float32("nan"))
    assert np.isnan(value)
    assert np.isnan(pullback(np.float32("nan"))[0])
