"""The VAE with a latent per place."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.models.model import decoded

MODEL = jaxvae.SpatialVAE((8, 12, 2), 3, (4, 8))
IMAGES = jax.random.uniform(jax.random.key(1), (8, 8, 12, 2))
CONFIG = jaxvae.TrainConfig(batch_size=4)


@pytest.fixture(scope="module")
def params():
    initial = jax.jit(MODEL.init)(jax.random.key(7), IMAGES)["params"]
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(next(keys), leaf.shape), initial)


def test_a_spatial_vae_matches_float64(params):
    encode, decode = oracle.spatial_vae(params, levels=2)
    posterior = jax.jit(lambda params, images: jaxvae.encode(MODEL, params, images))(params, IMAGES)
    assert posterior.mean.shape == posterior.log_std.shape == (8, 2, 3, 3)
    means = jax.jit(lambda params, latents: jaxvae.decode(MODEL, params, latents))(params, posterior.mean)
    kls = jaxvae.sample_scores(MODEL, params, IMAGES).kl
    for i, image in enumerate(np.asarray(IMAGES, np.float64)):
        mean, log_std = encode(image)
        np.testing.assert_allclose(posterior.mean[i], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(posterior.log_std[i], log_std, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(means[i], decode(mean), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(kls[i], oracle.kl(mean.ravel(), log_std.ravel()), rtol=1e-4)


def test_a_code_of_8x8_places_is_the_papers():
    shapes = jax.eval_shape(jaxvae.SpatialVAE((128, 128, 1), features=(32, 64, 128, 128)).init, *_inputs(128))
    assert shapes["params"]["encoder_mean"]["kernel"].shape == (128, 128)
    model = jaxvae.SpatialVAE((64, 64, 1))
    params = jax.eval_shape(model.init, *_inputs(64))["params"]
    posterior = jax.eval_shape(lambda params, images: jaxvae.encode(model, params, images), params, _inputs(64)[1])
    assert posterior.mean.shape == (1, 8, 8, 128)


def _inputs(side):
    return jax.random.key(0), jnp.zeros((1, side, side, 1))


def test_scores_do_not_depend_on_the_batch(params):
    batch = jaxvae.score_batch(MODEL, params, IMAGES)
    alone = jaxvae.score_batch(MODEL, params, IMAGES[3:4])
    for name, maps in batch.maps.items():
        np.testing.assert_allclose(alone.maps[name][0], maps[3], atol=2e-5 * np.abs(maps[3]).max())


def test_gradients_match_those_of_the_elbo(params):
    def elbo(images):
        return jaxvae.negative_elbo(jaxvae.elbo_terms(MODEL, params, images)).sum()

    expected = jnp.abs(jax.jit(jax.grad(elbo))(IMAGES))
    maps = jaxvae.pixel_scores(MODEL, params, IMAGES)
    np.testing.assert_allclose(maps.elbo_grad, expected, atol=1e-4 * float(expected.max()))


def test_runs_with_fewer_latents_equal_smaller_models():
    """Every channel of the code is masked as a whole, and the padding stays zero."""
    population = jaxvae.grid(learning_rate=[1e-2], latent_size=[2, 3])
    states, metrics = jaxvae.fit_many(MODEL, CONFIG, population, IMAGES, steps=4)
    scores = jaxvae.score_many(MODEL, states.params, IMAGES)
    for r, size in enumerate((2, 3)):
        small, hparams = MODEL.clone(latent_size=size), jaxvae.Hyperparams(learning_rate=1e-2)
        state = jaxvae.init(small, CONFIG, hparams, jax.random.key(0))
        state, expected = jaxvae.fit(small, CONFIG, hparams, state, IMAGES, steps=4)
        np.testing.assert_allclose(metrics.loss[r], expected.loss, rtol=1e-5)
        np.testing.assert_allclose(scores.elbo[r], jaxvae.sample_scores(small, state.params, IMAGES).elbo, rtol=1e-4)
        own, wanted = (tree["encoder_mean"]["kernel"] for tree in (states.params, state.params))
        np.testing.assert_allclose(own[r, :, :size], wanted, atol=1e-4)
        assert not np.asarray(own)[r, :, size:].any()


def test_a_spatial_vae_learns_its_scale_and_drops_its_code(params):
    for kind, shape in (("shared", ()), ("pixel", IMAGES.shape)):
        model = MODEL.clone(decoder_scale=kind, dropout=0.2)
        own = jax.jit(model.init)(jax.random.key(7), IMAGES)["params"]
        output = model.apply({"params": own}, jnp.ones((8, 2, 3, 3)), method="decode")
        assert output.log_scale.shape == shape

    def means_of(model):
        return jax.jit(lambda params: decoded(model, params, jnp.ones((8, 2, 3, 3)), jax.random.key(0)).mean)(params)

    means = means_of(MODEL), means_of(MODEL.clone(dropout=0.5))
    assert np.abs(means[0] - means[1]).max() > 1e-3


def test_an_image_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match=r"image_shape=\(28, 28, 1\): cannot be halved 3 times; use 32x32 images"):
        jaxvae.SpatialVAE((28, 28, 1))
