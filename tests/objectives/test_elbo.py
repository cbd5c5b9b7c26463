from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxvae
import oracle


def posterior(seed=0, scale=1.0):
    mean_key, std_key = jax.random.split(jax.random.key(seed))
    return jaxvae.Posterior(scale * jax.random.normal(mean_key, (50, 7)), scale * jax.random.normal(std_key, (50, 7)))


def test_kl_matches_its_formula_in_float64():
    q = posterior()
    expected = [oracle.kl(*(np.asarray(a[i], np.float64) for a in q)) for i in range(50)]
    np.testing.assert_allclose(jaxvae.gaussian_kl(q), expected, rtol=1e-5)


def test_kl_matches_sampling():
    q = jaxvae.Posterior(jnp.array([[0.7, -0.2]]), jnp.array([[-0.5, 0.3]]))
    mean, std = (np.asarray(a, np.float64) for a in (q.mean[0], jnp.exp(q.log_std[0])))
    z = mean + std * np.random.default_rng(0).standard_normal((400_000, 2))
    estimate = (stats.norm.logpdf(z, mean, std) - stats.norm.logpdf(z)).sum(axis=1).mean()
    np.testing.assert_allclose(jaxvae.gaussian_kl(q)[0], estimate, atol=0.01)


def test_kl_is_positive_and_zero_at_the_prior_only():
    # Near the prior exp(2 s) - 1 - 2 s is all rounding error in float32 unless written with expm1.
    for scale in (1e-3, 1e-2, 1.0, 5.0):
        assert (np.asarray(jaxvae.gaussian_kl(posterior(scale=scale))) > 0).all()
    assert float(jaxvae.gaussian_kl(jaxvae.Posterior(jnp.zeros((1, 9)), jnp.zeros((1, 9))))[0]) == 0.0


@pytest.mark.parametrize("log_scale", [0.5, 0.0, -1.1, -4.0])
def test_nll_matches_scipy(log_scale):
    images, means = (jax.random.uniform(jax.random.key(i), (2, 3, 4, 1)) for i in (0, 1))
    expected = -stats.norm.logpdf(np.asarray(images, np.float64), np.asarray(means, np.float64), np.exp(log_scale))
    np.testing.assert_allclose(jaxvae.gaussian_nll(images, means, log_scale=log_scale), expected, rtol=1e-4, atol=1e-5)


def test_terms_at_the_mean_and_at_a_draw(vae, images):
    model, params = vae
    q = jaxvae.encode(model, params, images)
    at_mean = jaxvae.elbo_terms(model, params, images, log_scale=-0.5)
    expected = jaxvae.gaussian_nll(images, jaxvae.decode(model, params, q.mean), log_scale=-0.5)
    np.testing.assert_allclose(at_mean.nll, expected, rtol=1e-5)
    key = jax.random.key(3)
    drawn = jaxvae.elbo_terms(model, params, images, key, log_scale=-0.5)
    latents = q.mean + jnp.exp(q.log_std) * jax.random.normal(key, q.mean.shape[::-1]).T
    expected = jaxvae.gaussian_nll(images, jaxvae.decode(model, params, latents), log_scale=-0.5)
    np.testing.assert_allclose(drawn.nll, expected, rtol=1e-4)
    np.testing.assert_allclose(drawn.kl, at_mean.kl, rtol=1e-6)
    assert not np.allclose(drawn.nll, at_mean.nll)


def test_negative_elbo_sums_pixels_and_weighs_the_kl():
    terms = jaxvae.ElboTerms(jnp.array([2.0, 3.0]), jnp.ones((2, 4, 5, 1)))
    np.testing.assert_allclose(jaxvae.negative_elbo(terms, beta=10.0), [40.0, 50.0])


def test_a_log_scale_per_run_is_refused():
    """Broadcasting would make three channels of one channel and three scales."""
    model, images = jaxvae.DenseVAE((8, 8, 1), 3, 4), jnp.zeros((2, 8, 8, 1))
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    for score in (jaxvae.elbo_terms, jaxvae.pixel_scores, jaxvae.sample_scores):
        with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=r"a log_scale of shape \(3,\): "):
            score(model, params, images, log_scale=jnp.zeros(3))
