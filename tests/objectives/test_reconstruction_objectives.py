"""Objectives without a KL and their corruptions: autoencoder, context encoding, denoising."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.objectives import OBJECTIVES
from jaxvae.objectives.autoencoder import autoencoder_terms
from jaxvae.objectives.context import cevae_terms, context_terms, erase
from jaxvae.objectives.denoising import coarse_noise, denoising_terms, pixel_noise

KEY = jax.random.key(5)
NAMES = ["autoencoder", "ce", "cevae", "denoising"]


class Filter(nn.Module):
    """A model without a latent: a linear map of the image to itself."""

    image_shape: tuple[int, int, int] = (8, 8, 1)
    latent_size: int = 0

    def setup(self):
        self.layer = nn.Dense(64)

    def reconstruct(self, images):
        return jaxvae.Decoded(self.layer(images.reshape(len(images), -1)).reshape(images.shape))


def data(count=12):
    return jax.random.uniform(jax.random.key(9), (count, 8, 8, 1))


@pytest.fixture(scope="module")
def dense():
    """(model, params), with four times the initial weights."""
    model = jaxvae.DenseVAE((16, 24, 2), 5, 32)
    params = jax.jit(model.init)(jax.random.key(7), jnp.zeros((1, 16, 24, 2)))["params"]
    return model, jax.tree.map(lambda leaf: 4 * leaf, params)


def test_an_autoencoder_has_the_nll_at_the_mean_and_no_kl(dense, images):
    model, params = dense
    terms = autoencoder_terms(model, params, images, KEY, log_scale=-1.0)
    elbo = jaxvae.elbo_terms(model, params, images, log_scale=-1.0)
    np.testing.assert_array_equal(terms.kl, np.zeros(6))
    np.testing.assert_allclose(terms.nll, elbo.nll, rtol=1e-6)


def test_erased_squares_match_float64(images):
    """The draws are JAX's; the squares are painted one by one in NumPy."""
    squares = np.asarray(erase(KEY, images))
    number_key, side_key, centre_key = jax.random.split(KEY, 3)
    numbers = np.asarray(jax.random.randint(number_key, (6, 1), 1, 4))[:, 0]
    sides = np.asarray(jax.random.uniform(side_key, (6, 3), minval=0.1, maxval=0.4)) * 16
    centres = np.asarray(jax.random.uniform(centre_key, (2, 6, 3)))
    for i, image in enumerate(np.asarray(images)):
        expected = image.copy()
        for j in range(numbers[i]):
            for row, column in np.ndindex(16, 24):
                offsets = abs(row + 0.5 - 16 * centres[0, i, j]), abs(column + 0.5 - 24 * centres[1, i, j])
                if max(offsets) <= sides[i, j] / 2:
                    expected[row, column] = image[0, 0]
        np.testing.assert_array_equal(squares[i], expected)


def test_one_to_three_squares_are_erased_and_differ_between_images():
    images = jnp.ones((200, 32, 32, 1)).at[:, 0, 0].set(0)
    erased = np.asarray(erase(KEY, images) == 0)[..., 0]
    shares = erased.mean(axis=(1, 2))
    assert 0 < shares.min() < shares.max() <= 3 * 0.42**2
    assert len(np.unique(erased.reshape(200, -1), axis=0)) > 190


def test_context_encoding_compares_with_the_whole_image(dense, images):
    model, params = dense
    erase_key, _ = jax.random.split(KEY)
    erased = erase(erase_key, images)
    means = jaxvae.decode(model, params, jaxvae.encode(model, params, erased).mean)
    terms = context_terms(model, params, images, KEY, log_scale=-0.5)
    np.testing.assert_allclose(terms.nll, jaxvae.gaussian_nll(images, means, log_scale=-0.5), rtol=1e-5)
    np.testing.assert_array_equal(terms.kl, np.zeros(6))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_cevae_is_the_weighted_sum_of_its_halves(dense, images, weight):
    model, params = dense
    vae_key, context_key = jax.random.split(KEY)
    full = jaxvae.negative_elbo(jaxvae.elbo_terms(model, params, images, vae_key))
    context = jaxvae.negative_elbo(context_terms(model, params, images, context_key))
    terms = cevae_terms(model, params, images, KEY, context_weight=weight)
    np.testing.assert_allclose(jaxvae.negative_elbo(terms), (1 - weight) * full + weight * context, rtol=1e-5)


def test_coarse_noise_matches_float64(images):
    images = 3 * images.at[:, :3].set(0.5) - 1  # The background is neither 0 nor the least value.
    found = np.asarray(coarse_noise(KEY, images, strength=0.3, grid=4) - images)
    noise_key, row_key, column_key = jax.random.split(KEY, 3)
    coarse = 0.3 * np.asarray(jax.random.normal(noise_key, (6, 4, 4, 2)), np.float64)
    rows, columns = (
        np.asarray(jax.random.randint(key, (6,), 0, size)) for key, size in ((row_key, 16), (column_key, 24))
    )
    for i, one in enumerate(coarse):
        noise = np.ptp(images[i]) * np.roll(oracle.enlarged(one, (16, 24)), (rows[i], columns[i]), axis=(0, 1))
        noise[:3] = 0
        np.testing.assert_allclose(found[i], noise, atol=1e-5)


def test_the_strength_of_noise_can_be_traced(images):
    for noise in (coarse_noise, pixel_noise):
        change = jax.jit(lambda strength, noise=noise: noise(KEY, images, strength=strength) - images)
        np.testing.assert_allclose(change(0.4), 2 * change(0.2), atol=1e-6)
    assert np.asarray(pixel_noise(KEY, images, strength=0.2) - images).std() == pytest.approx(0.2, rel=0.1)


def test_denoising_encodes_noise_and_compares_with_the_clean_image(dense, images):
    model, params = dense
    noise_key, _ = jax.random.split(KEY)
    noisy = pixel_noise(noise_key, images, strength=0.2)
    means = jaxvae.decode(model, params, jaxvae.encode(model, params, noisy).mean)
    corrupt = functools.partial(pixel_noise, strength=0.2)
    terms = denoising_terms(model, params, images, KEY, log_scale=-0.5, corrupt=corrupt)
    np.testing.assert_allclose(terms.nll, jaxvae.gaussian_nll(images, means, log_scale=-0.5), rtol=1e-5)
    np.testing.assert_array_equal(terms.kl, np.zeros(6))


DENSE = jaxvae.DenseVAE((8, 8, 1), 3, 16)
SLOW = [
    pytest.param(name, model, marks=pytest.mark.slow) for name in ("autoencoder", "ce") for model in (DENSE, Filter())
]


@pytest.mark.parametrize(
    ("name", "model"), [("cevae", DENSE), ("denoising", DENSE), ("denoising", Filter()), ("cevae", Filter()), *SLOW]
)
def test_a_population_equals_its_runs_for_every_objective(model, name):
    objective, config = OBJECTIVES[name].function(), jaxvae.TrainConfig(batch_size=4)
    settings = {"steps": 4, "objective": objective}
    population = jaxvae.grid(seed=[3], log_scale=[-0.5, 0.5], learning_rate=[1e-2])
    states, metrics = jaxvae.fit_many(model, config, population, data(), **settings)
    for r, log_scale in enumerate((-0.5, 0.5)):
        hparams = jaxvae.Hyperparams(learning_rate=1e-2, log_scale=log_scale)
        state = jaxvae.init(model, config, hparams, jax.random.key(3))
        state, expected = jaxvae.fit(model, config, hparams, state, data(), **settings)
        np.testing.assert_allclose(metrics.loss[r], expected.loss, rtol=1e-5)
        for many, one in zip(jax.tree.leaves(states.params), jax.tree.leaves(state.params), strict=True):
            np.testing.assert_allclose(many[r], one, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_without_a_key_is_deterministic(dense, images, name):
    model, params = dense
    objective = OBJECTIVES[name].function()
    first, second = (objective(model, params, images, log_scale=0.0) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    plain = jaxvae.elbo_terms(model, params, images)
    np.testing.assert_allclose(first.nll, plain.nll, rtol=1e-5)
