"""Run by test_sweep.py: a population spread over four devices is the population on one."""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

import jaxvae
from jaxvae.sharding import run_mesh

model, config = jaxvae.DenseVAE((8, 8, 1), 4, 16), jaxvae.TrainConfig(batch_size=4)
images = jax.random.uniform(jax.random.key(9), (12, 8, 8, 1))
runs = jaxvae.grid(seed=[0, 1, 2], latent_size=[2, 4])  # Six runs do not fill four devices twice.
states, metrics = jaxvae.fit_many(model, config, runs, images, steps=5, mesh=run_mesh())
expected_states, expected = jaxvae.fit_many(model, config, runs, images, steps=5)
np.testing.assert_allclose(metrics.loss, expected.loss, rtol=1e-5)
for spread, whole in zip(jax.tree.leaves(states.params), jax.tree.leaves(expected_states.params), strict=True):
    np.testing.assert_allclose(spread, whole, atol=1e-5)
print(len(jax.devices()), "devices,", len(runs), "runs: equal")
