"""The memory model against what XLA counts for the compiled programs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import jaxvae
from jaxvae import capacity, sweep


@pytest.mark.parametrize(("runs", "together"), [(2, 1), (6, 1), (6, 6)])
def test_the_model_is_near_xlas_count_and_not_below_it(runs, together):
    model, config = jaxvae.DenseVAE((28, 28, 1), 20, 200), jaxvae.TrainConfig(batch_size=16)
    images = jnp.zeros((64, 28, 28, 1), jnp.uint8)
    population = jaxvae.grid(seed=range(runs))
    states = sweep.init_many(model, config, population)
    counted = (
        sweep._fit_many.lower(
            model,
            config,
            population,
            (states.params, states.opt_state, states.key),
            images,
            jnp.int32(0),
            steps=3,
            mesh=None,
            objective=jaxvae.elbo_terms,
            together=together,
        )
        .compile()
        .memory_analysis()
    )
    assert counted is not None
    # Of the outputs, those that take an input's place are not counted twice.
    held = counted.argument_size_in_bytes + counted.temp_size_in_bytes
    held += counted.output_size_in_bytes - counted.alias_size_in_bytes
    expected = capacity.population_bytes(model, runs, together=together, image_bytes=images.nbytes)
    assert 0.95 * held < expected < 2 * held


def test_there_is_memory_here():
    free = capacity.free_bytes()
    assert free is None or 10**6 < free < 10**14
    assert jax.local_devices()
