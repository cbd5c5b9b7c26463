"""Scores of a population equal the scores of its runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jaxvae
from jaxvae import parity
from jaxvae.population.fit_many import init_many

MODELS = [jaxvae.DenseVAE((8, 8, 1), 6, 16), jaxvae.ConvVAE((8, 8, 1), 6, (3, 5))]
CONFIG = jaxvae.TrainConfig(batch_size=4)


def data(count=12):
    return jax.random.uniform(jax.random.key(9), (count, 8, 8, 1))


def test_scores_of_a_population_equal_those_of_its_runs():
    model, images = MODELS[1], data(7)
    population = jaxvae.grid(seed=[0, 1], log_scale=[0.0, -1.0])
    params = init_many(model, CONFIG, population).params
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    many = jaxvae.score_many(model, params, images, log_scale=population.hparams.log_scale, batch_size=3)
    drawn = jaxvae.score_many(model, params, images, keys, batch_size=7, score=parity.sample_scores)
    for r in range(4):
        run = jax.tree.map(lambda leaf, r=r: leaf[r], params)
        one = jaxvae.sample_scores(model, run, images, log_scale=population.hparams.log_scale[r])
        np.testing.assert_allclose(many.elbo[r], one.elbo, rtol=1e-5)
        one = parity.sample_scores(model, run, images, jax.random.fold_in(jax.random.key(r), 0))
        np.testing.assert_allclose(drawn.nll[r], one.nll, rtol=1e-5)
