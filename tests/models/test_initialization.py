"""The initial weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jaxvae
from jaxvae.models.initialization import uniform


def test_weights_are_uniform_within_one_over_the_root_of_fan_in():
    model = jaxvae.ConvVAE((64, 64, 1), 256)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))["params"]
    # Fan-ins as PyTorch counts them: of a transposed convolution on its output side.
    fan_ins = {"encoder_0": 16, "encoder_3": 64 * 16, "encoder_latent": 4096, "decoder_latent": 4096, "decoder_0": 1024}
    for name, fan_in in fan_ins.items():
        bound = fan_in**-0.5
        weights = np.asarray(params[name])
        assert np.abs(weights).max() <= bound
        np.testing.assert_allclose(weights.std(), bound / np.sqrt(3), rtol=0.15)


def test_weights_drawn_as_one_row_equal_a_draw_of_their_shape():
    key, shape = jax.random.key(3), (4, 4, 3, 5)
    np.testing.assert_array_equal(uniform(25)(key, shape), jax.random.uniform(key, shape, minval=-0.2, maxval=0.2))
