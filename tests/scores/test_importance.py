"""The importance-weighted bound against the likelihood of a linear VAE and against NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxvae
from image_score_laws import MODELS, check_laws
from jaxvae.models.model import encode
from jaxvae.scores import importance
from linear_vae import LATENT, SHAPE, LinearVAE, decoder, linear_params, log_likelihood, negative_elbo, posterior

SCALE = -0.3
IMAGES = np.asarray(jax.random.normal(jax.random.key(0), (7, *SHAPE)))


def iwae(params: dict, draws: int) -> np.ndarray:
    return np.asarray(importance.score(LinearVAE(), params, IMAGES, log_scale=SCALE, draws=draws)["iwae"])


@pytest.mark.parametrize("draws", [1, 5])
def test_the_exact_posterior_gives_the_likelihood_for_any_draws(draws: int) -> None:
    params = linear_params(0, log_scale=SCALE, orthogonal=True)
    np.testing.assert_allclose(iwae(params, draws), -log_likelihood(params, IMAGES, SCALE), rtol=1e-4)


def test_many_draws_approach_the_likelihood_from_the_elbo() -> None:
    params = linear_params(0, log_scale=SCALE, orthogonal=False, error=0.1)
    exact = -log_likelihood(params, IMAGES, SCALE)
    elbo = negative_elbo(params, IMAGES, *posterior(params, IMAGES), SCALE)
    few, many = iwae(params, 64), iwae(params, 4096)
    assert (elbo > exact + 0.03).all()
    np.testing.assert_allclose(many, exact, atol=0.05)
    assert np.abs(many - exact).mean() < np.abs(few - exact).mean() < np.abs(elbo - exact).mean()


def test_the_bound_equals_numpy_with_the_same_noise() -> None:
    params = linear_params(1, log_scale=SCALE, orthogonal=False, error=0.2)
    noise = np.asarray(importance.shared_noise(encode(LinearVAE(), params, IMAGES), 6), np.float64)
    mean, log_std = posterior(params, IMAGES)
    weights, bias = decoder(params)
    ratios = []
    for draw in noise:
        z = mean + np.exp(log_std) * draw
        error = ((IMAGES.reshape(len(IMAGES), -1) - z @ weights - bias) ** 2).sum(axis=1)
        log_p = -0.5 * error * np.exp(-2 * SCALE) - 6 * (SCALE + 0.5 * np.log(2 * np.pi)) - 0.5 * (z**2).sum(axis=1)
        ratios.append(np.exp(log_p + (log_std + 0.5 * draw**2).sum(axis=1)))
    np.testing.assert_allclose(iwae(params, 6), -np.log(np.mean(ratios, axis=0)), rtol=1e-5)


def test_the_noise_is_shared_and_differs_between_draws() -> None:
    shape = jaxvae.Posterior(np.zeros((9, LATENT)), np.zeros((9, LATENT)))
    noise = importance.shared_noise(shape, 2000)
    assert noise.shape == (2000, 1, LATENT)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.05)
    assert len(np.unique(noise)) > 3900


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_laws_of_scores_hold(kind: str) -> None:
    check_laws(importance, kind, draws=3)


def test_a_prior_of_its_own_is_refused() -> None:
    class WithPrior(LinearVAE):
        def kl(self, posterior, latents):
            return latents.sum(axis=1)

    params = linear_params(0, log_scale=SCALE, orthogonal=True)
    with pytest.raises(jaxvae.InputError, match="iwae: WithPrior has its own prior"):
        importance.score(WithPrior(), params, IMAGES)
    with pytest.raises(jaxvae.InputError, match="draws=0: must be at least 1"):
        importance.score(LinearVAE(), params, IMAGES, draws=0)
