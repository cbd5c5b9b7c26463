"""The two-stage VAE, its learned prior and its objective."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.models.model import init_params, soft_bound
from jaxvae.objectives.elbo import kl_divergence
from jaxvae.objectives.learned_prior import two_stage_terms

MODEL = jaxvae.TwoStageVAE((6, 5, 1), 4, 16, prior_size=12)
IMAGES = jax.random.uniform(jax.random.key(1), (8, 6, 5, 1))
CONFIG = jaxvae.TrainConfig(batch_size=4)


@pytest.fixture(scope="module")
def params():
    initial = jax.jit(MODEL.init)(jax.random.key(7), IMAGES)["params"]
    return jax.tree.map(lambda leaf: 2 * leaf, initial)


def test_the_learned_prior_matches_float64(params):
    posterior = jaxvae.encode(MODEL, params, IMAGES)
    found = kl_divergence(MODEL, params, posterior, posterior.mean)
    prior, log_scale = oracle.second_stage(params), float(soft_bound(params["second"]["decoder_log_scale"]))
    for i, (mean, log_std) in enumerate(zip(*(np.asarray(part, np.float64) for part in posterior), strict=True)):
        entropy = np.sum(log_std + 0.5 * np.log(2 * np.pi * np.e))
        spread = 0.5 * np.sum(np.exp(2 * (log_std - log_scale)))
        np.testing.assert_allclose(found[i], prior(mean) + spread - entropy, rtol=1e-4)


def test_a_normal_prior_gives_the_usual_kl_and_its_gradient(params):
    """With zero weights, stage 2 is N(0, g^2)."""
    params = {"first": params["first"], "second": jax.tree.map(jnp.zeros_like, params["second"])}
    params["second"]["decoder_log_scale"] = jnp.float32(0.5)
    log_scale = soft_bound(params["second"]["decoder_log_scale"])

    def kl_to_normal(images):
        mean, log_std = jaxvae.encode(MODEL, params, images)
        return jaxvae.gaussian_kl(jaxvae.Posterior(mean * jnp.exp(-log_scale), log_std - log_scale))

    np.testing.assert_allclose(jaxvae.sample_scores(MODEL, params, IMAGES).kl, kl_to_normal(IMAGES), rtol=1e-4)
    expected = jnp.abs(jax.grad(lambda images: kl_to_normal(images).sum())(IMAGES))
    found = jaxvae.pixel_scores(MODEL, params, IMAGES).kl_grad
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.max()))


def test_no_gradient_flows_from_stage_2_to_stage_1(params):
    key = jax.random.key(3)

    both = jax.grad(lambda params: jaxvae.negative_elbo(two_stage_terms(MODEL, params, IMAGES, key)).sum())(params)
    alone = jaxvae.DenseVAE((6, 5, 1), 4, 16, decoder_scale="shared")
    latent_key, _ = jax.random.split(key)
    first = jax.grad(lambda own: jaxvae.negative_elbo(jaxvae.elbo_terms(alone, own, IMAGES, latent_key)).sum())
    for one, other in zip(*map(jax.tree.leaves, (both["first"], first(params["first"]))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(both["second"]))


def test_a_population_equals_its_runs():
    settings = {"steps": 10, "objective": two_stage_terms}
    hparams = jaxvae.Hyperparams(learning_rate=3e-3)
    _, metrics = jaxvae.fit_many(MODEL, CONFIG, jaxvae.grid(seed=[0, 3], learning_rate=[3e-3]), IMAGES, **settings)
    for r, seed in enumerate((0, 3)):
        state = jaxvae.init(MODEL, CONFIG, hparams, jax.random.key(seed))
        _, expected = jaxvae.fit(MODEL, CONFIG, hparams, state, IMAGES, **settings)
        np.testing.assert_allclose(metrics.loss[r], expected.loss, rtol=1e-4)


def test_stage_2_learns_the_distribution_of_the_latents():
    """The mean of -log p(z) over draws of z falls far below that of an untrained stage 2, to that of N(0, I)."""
    hparams, key = jaxvae.Hyperparams(learning_rate=3e-3), jax.random.key(0)
    state = jaxvae.init(MODEL, CONFIG, hparams, key)
    state, _ = jaxvae.fit(MODEL, CONFIG, hparams, state, IMAGES, steps=300, objective=two_stage_terms)
    posterior = jaxvae.encode(MODEL, state.params, IMAGES)

    keys = jax.random.split(jax.random.key(1), 500)
    draws = jax.vmap(lambda key: jaxvae.reparameterize(posterior, key))(keys)

    def mean_energy(second):
        params = {"params": {**state.params, "second": second}}
        return float(jax.vmap(lambda latents: MODEL.apply(params, latents, method="prior"))(draws).mean())

    trained = mean_energy(state.params["second"])
    assert trained < mean_energy(init_params(MODEL, key)["second"]) - 1
    normal = 0.5 * jnp.sum(jnp.square(draws), axis=-1) + 0.5 * MODEL.latent_size * np.log(2 * np.pi)
    assert trained < float(normal.mean()) + 0.2


def test_a_population_has_one_latent_size():
    population = jaxvae.grid(latent_size=[2, 4])
    with pytest.raises(jaxvae.InputError, match="latent_size: a population of models with a prior of their own must"):
        jaxvae.fit_many(MODEL, CONFIG, population, IMAGES, steps=1, objective=two_stage_terms)
