"""Scores over draws and members against NumPy in float64 and the closed forms of a linear VAE."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pixel_score_laws
import pytest
from two_matrices import TwoMatrices

import jaxvae
import oracle
from jaxvae.models.model import init_params
from jaxvae.objectives.elbo import gaussian_nll
from jaxvae.scores import METHODS, draws
from jaxvae.scores.draws import DRAWS, EPSILON, members, noise_of, score
from jaxvae.scores.predictive import predictive
from jaxvae.types import Array, Decoded
from oracle import assert_close


class Case(NamedTuple):
    model: TwoMatrices
    params: dict
    images: Array


@pytest.fixture(scope="module")
def case() -> Case:
    model = TwoMatrices()
    images = jax.random.uniform(jax.random.key(1), (4, *model.image_shape))
    return Case(model, init_params(model, jax.random.key(0)), images)


def in_numpy(predictions: np.ndarray, image: np.ndarray, log_scales: np.ndarray | float) -> dict[str, np.ndarray]:
    """The three scores of one image from its predictions [L, H, W, C], in float64."""
    image, scales = np.asarray(image, np.float64), np.broadcast_to(log_scales, len(predictions))
    each = zip(predictions, scales, strict=True)
    nll = [((image - one) / np.exp(scale)) ** 2 / 2 + scale + 0.5 * np.log(2 * np.pi) for one, scale in each]
    variance = predictions.var(axis=0, ddof=1)
    distance = (image - predictions.mean(0)) ** 2 / (variance + EPSILON)
    return {"rec_probability": np.mean(nll, axis=0), "draw_variance": variance, "mahalanobis": distance}


def test_draws_match_float64_with_the_same_noise(vae, images):
    model, params = vae
    if isinstance(model, jaxvae.ConvVAE):
        encode, decode = oracle.conv_vae(params, levels=2)
    else:
        encode, decode = oracle.dense_vae(params, model.image_shape)
    found = score(model, params, images, log_scale=-0.5, draws=5)
    noise = np.asarray(noise_of((5,), 5), np.float64)
    for number in (0, 5):
        image = np.asarray(images[number], np.float64)
        mean, log_std = encode(image)
        predictions = np.stack([decode(mean + np.exp(log_std) * one) for one in noise])
        expected = in_numpy(predictions, image, -0.5)
        assert list(expected) == [score.name for score in METHODS["draws"].scores]
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == jnp.float32
            assert_close(found[name][number], values, 1e-4)


@pytest.mark.parametrize("count", [16, 1024])
@pytest.mark.parametrize("learned", [None, -0.8])
def test_draws_approach_the_closed_form_of_a_linear_vae(case, count, learned):
    model = TwoMatrices(scale=learned)
    log_scale = -0.3 if learned is None else learned
    found = score(model, case.params, case.images, log_scale=-0.3, draws=count)
    down, up = (np.asarray(case.params[name], np.float64) for name in ("down", "up"))
    flat = np.asarray(case.images, np.float64).reshape(4, -1)
    error = (flat - flat @ down @ up) ** 2
    variance = np.exp(2 * model.log_std) * (up**2).sum(0)
    noise = math.exp(2 * log_scale)
    nll = (error + variance) / (2 * noise) + log_scale + 0.5 * math.log(2 * math.pi)
    # The errors of an estimated variance and of an estimated mean, five standard errors and less.
    spread = 5 * math.sqrt(2 / (count - 1))
    np.testing.assert_allclose(found["draw_variance"].reshape(4, -1), np.stack([variance] * 4), rtol=spread)
    shift = 5 * np.sqrt(variance / count)
    tolerance = (2 * np.sqrt(error) * shift + shift**2 + spread * variance) / (2 * noise)
    assert (np.abs(found["rec_probability"].reshape(4, -1) - nll) < tolerance).all()
    got = np.asarray(found["mahalanobis"]).reshape(4, -1)
    low = np.maximum(np.sqrt(error) - shift, 0) ** 2 / ((1 + spread) * variance + EPSILON)
    high = (np.sqrt(error) + shift) ** 2 / (max(1 - spread, 0) * variance + EPSILON)
    assert ((got >= low) & (got <= high)).all()


def test_squared_z_scores_of_the_models_own_images_have_mean_one():
    # With the decoder's variance as epsilon.
    model = TwoMatrices(image_shape=(16, 16, 1), log_std=0.0)
    params = init_params(model, jax.random.key(3))
    params["down"] = jnp.zeros_like(params["down"])  # The posterior is the prior, so the model's own images fit it.
    latents, noise = (jax.random.normal(jax.random.key(seed), (400, size)) for seed, size in ((4, 3), (5, 256)))
    images = (latents @ params["up"] + math.exp(-1.0) * noise).reshape(400, 16, 16, 1)
    found = score(model, params, images, draws=128, epsilon=math.exp(-2.0))["mahalanobis"]
    np.testing.assert_allclose(found.mean(), 1, rtol=0.05)


@pytest.mark.parametrize("kind", ["dense", "conv", "spatial"])
def test_laws_of_pixel_scores(kind):
    pixel_score_laws.check_laws(draws, kind, draws=3)


def test_first_latents_have_the_same_noise_for_any_latent_size():
    np.testing.assert_array_equal(noise_of((3,), 8), noise_of((7,), 8)[:, :3])
    assert noise_of((2, 3, 4), 8).shape == (8, 2, 3, 4)
    noise = np.asarray(noise_of((20,), 500))
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_another_likelihood_is_used():
    model = TwoMatrices()
    params = init_params(model, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (2, *model.image_shape))

    def laplace(images, means, *, log_scale):
        return jnp.abs(images - means) * jnp.exp(-log_scale) + log_scale + math.log(2)

    found = score(model, params, images, likelihood=laplace, draws=3)["rec_probability"]
    latents = (images.reshape(2, -1) @ params["down"])[None] + math.exp(-1) * noise_of((3,), 3)[:, None]
    expected = jnp.abs(images[None] - (latents @ params["up"]).reshape(3, *images.shape)).mean(0) + math.log(2)
    assert_close(found, expected)


@pytest.mark.parametrize("scales", [0.3, [0.3, -1.0, 0.0]])
def test_members_match_float64(case, scales):
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf, -2 * leaf]), case.params)
    found = members(case.model, many, case.images, log_scale=jnp.asarray(scales))
    down, up = (np.asarray(many[name], np.float64) for name in ("down", "up"))
    for number, image in enumerate(np.asarray(case.images, np.float64)):
        predictions = np.stack([image.ravel() @ down[run] @ up[run] for run in range(3)]).reshape(3, *image.shape)
        for name, values in in_numpy(predictions, image, np.asarray(scales)).items():
            assert_close(found[name][number], values)


def test_members_use_the_scales_that_they_learned(case):
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), case.params)
    learned = members(TwoMatrices(scale=-0.5), many, case.images, log_scale=7.0)
    given = members(case.model, many, case.images, log_scale=-0.5)
    for name, values in given.items():
        assert_close(learned[name], values)


def test_small_variances_of_large_means_are_exact():
    means = 1e2 + np.random.default_rng(0).normal(0, 0.01, (50, 1, 2, 2, 1)).astype(np.float32)
    images = jnp.zeros((1, 2, 2, 1))
    found = predictive(Decoded, jnp.asarray(means), images, log_scale=0.0, likelihood=gaussian_nll)
    np.testing.assert_allclose(found.variance, means.astype(np.float64).var(0, ddof=1), rtol=1e-3)
    np.testing.assert_allclose(found.error(images, 50), np.square(means.astype(np.float64)).mean(0), rtol=1e-6)


def test_one_draw_or_member_has_no_variance(case):
    with pytest.raises(ValueError, match="draws=1: a variance needs at least 2"):
        score(case.model, case.params, case.images, draws=1)
    with pytest.raises(ValueError, match="params: 1 member"):
        members(case.model, jax.tree.map(lambda leaf: leaf[None], case.params), case.images)
    assert DRAWS >= 2
