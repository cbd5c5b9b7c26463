"""The functions of (model, params), and custom models."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae import parity
from jaxvae.models.model import uniform


def test_images_of_another_shape_are_refused(vae):
    model, params = vae
    with pytest.raises(ValueError, match=r"images: \[2, 8, 8, 1\]; must be \[B, H, W, C\]"):
        jaxvae.encode(model, params, jnp.zeros((2, 8, 8, 1)))


def test_draws_have_the_moments_of_the_posterior():
    posterior = jaxvae.Posterior(
        jnp.full((20_000, 2), 3.0), jnp.broadcast_to(jnp.log(jnp.array([0.5, 2.0])), (20_000, 2))
    )
    draws = np.asarray(jaxvae.reparameterize(posterior, jax.random.key(0)))
    np.testing.assert_allclose(draws.mean(axis=0), 3.0, atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), [0.5, 2.0], rtol=0.03)
    np.testing.assert_array_equal(jaxvae.reparameterize(posterior, None), posterior.mean)


def test_latent_noise_does_not_depend_on_latent_size():
    """So a sweep over the latent size equals runs of each size."""
    few, many = (jaxvae.Posterior(jnp.zeros((3, size)), jnp.zeros((3, size))) for size in (2, 5))
    key = jax.random.key(0)
    np.testing.assert_array_equal(jaxvae.reparameterize(few, key), jaxvae.reparameterize(many, key)[:, :2])


class Custom(nn.Module):
    """A minimal custom network: two layers and no `__call__`."""

    image_shape: tuple[int, int, int] = (8, 8, 1)
    latent_size: int = 3
    wrong: str = ""

    def setup(self):
        self.heads, self.back = nn.Dense(2 * self.latent_size), nn.Dense(64)

    def encode(self, images):
        mean, log_std = jnp.split(self.heads(images.reshape(len(images), -1)), 2, axis=-1)
        log_std = log_std[:, :1] if self.wrong == "log_std" else log_std
        return (mean, log_std) if self.wrong == "tuple" else jaxvae.Posterior(mean, log_std)

    def decode(self, latents):
        image = self.back(latents).reshape(len(latents), 8, 8, 1)
        return image[:, :, :1] if self.wrong == "decode" else image


def laplace_nll(images, means, *, log_scale):
    return jnp.abs(images - means) * jnp.exp(-log_scale) + log_scale + jnp.log(2.0)


def test_a_custom_model_and_likelihood_train_and_score():
    model, config = Custom(), jaxvae.TrainConfig(batch_size=4)
    hparams = jaxvae.Hyperparams(learning_rate=1e-2, log_scale=-1.0)
    images = jax.random.uniform(jax.random.key(0), (12, 8, 8, 1))
    objective = functools.partial(jaxvae.elbo_terms, likelihood=laplace_nll)
    state = jaxvae.init(model, config, hparams, jax.random.key(0))
    state, metrics = jaxvae.fit(model, config, hparams, state, images, steps=60, objective=objective)
    assert metrics.loss[-5:].mean() < metrics.loss[:5].mean() - 5
    runs = jaxvae.grid(learning_rate=[1e-2], latent_size=[2, 3])
    states, _ = jaxvae.fit_many(model, config, runs, images, steps=3, objective=objective)
    assert states.params["heads"]["kernel"].shape == (2, 64, 6)

    def nll(images):
        means = jaxvae.decode(model, state.params, jaxvae.encode(model, state.params, images).mean)
        return laplace_nll(images, means, log_scale=-1.0).sum(axis=(1, 2, 3))

    scores = jaxvae.score_batch(model, state.params, images, log_scale=-1.0, likelihood=laplace_nll, window=1)
    np.testing.assert_allclose(scores.samples.nll, nll(images), rtol=1e-5)
    expected = jnp.abs(jax.grad(lambda images: nll(images).sum())(images))
    np.testing.assert_allclose(scores.maps["rec_grad"], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("log_std", r"Custom.encode gives mean \[1, 3\] and log_std \[1, 1\]; both must be \[B, Z\], \[1, 3\]"),
        ("tuple", r"Custom.encode gives tuple; return jaxvae.Posterior\(mean, log_std\)"),
        ("decode", r"Custom.decode gives \[1, 8, 1, 1\]; must be \[B, H, W, C\], \[1, 8, 8, 1\]"),
    ],
)
def test_a_custom_model_with_wrong_shapes_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        jaxvae.init(Custom(wrong=wrong), jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0))


def test_uint8_images_are_divided_by_255(vae):
    model, params = vae
    raw = np.random.default_rng(0).integers(0, 256, (2, *model.image_shape), np.uint8)
    for function in (jaxvae.encode, jaxvae.elbo_terms, parity.dense_elbo_terms):
        got, expected = (function(model, params, images) for images in (raw, raw / np.float32(255)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)


def test_initial_weights_match_torch_uniform_bounds():
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
