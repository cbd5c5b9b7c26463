"""Dropout, and the scale of the decoder that a model learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxvae
import oracle
from jaxvae.models.model import decoded, encode, reconstruct, soft_bound

DENSE, CONV = jaxvae.DenseVAE((8, 8, 2), 3, 16), jaxvae.ConvVAE((8, 8, 2), 3, (4, 6))
IMAGES = jax.random.uniform(jax.random.key(1), (5, 8, 8, 2))
both = pytest.mark.parametrize("model", [DENSE, CONV], ids=["dense", "conv"])


def params_of(model):
    params = jax.jit(model.init)(jax.random.key(7), jnp.zeros((1, *model.image_shape)))["params"]
    return jax.tree.map(lambda leaf: 3 * leaf, params)


@both
def test_dropout_changes_neither_parameters_nor_scores(model):
    dropped, params = model.clone(dropout=0.4), params_of(model)
    jax.tree.map(np.testing.assert_array_equal, params, params_of(dropped))
    programs = [jaxvae.score_batch.lower(it, params, IMAGES).as_text() for it in (model, dropped)]
    assert programs[0] == programs[1]
    assert "random" not in programs[0]


@both
def test_a_key_drops_hidden_units(model):
    model = model.clone(dropout=0.4)
    params, key = params_of(model), jax.random.key(3)
    whole, first, again = (reconstruct(model, params, IMAGES, it).mean for it in (None, key, key))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - whole).max() > 1e-3
    other = reconstruct(model, params, IMAGES, jax.random.key(4)).mean
    assert np.abs(first - other).max() > 1e-3
    with_key = jaxvae.elbo_terms(model, params, IMAGES, key).nll
    assert np.isfinite(with_key).all()


def test_dropout_keeps_the_mean_of_a_linear_layer():
    """In front of a linear layer, the mean over dropout is the output without it."""
    model = jaxvae.DenseVAE((8, 8, 2), 3, 16, dropout=0.3)
    params = params_of(model)
    keys = jax.random.split(jax.random.key(0), 4000)
    means = jax.vmap(lambda key: encode(model, params, IMAGES, key).mean)(keys)
    expected = encode(model, params, IMAGES).mean
    error = np.asarray(means).std(axis=0) / np.sqrt(len(keys))
    assert (np.abs(np.asarray(means).mean(axis=0) - expected) < 5 * error).all()


@both
@pytest.mark.parametrize("kind", ["shared", "pixel"])
def test_learned_scales_match_float64(model, kind):
    model = model.clone(decoder_scale=kind)
    params = params_of(model)
    if kind == "shared":
        params["decoder_log_scale"] = jnp.float32(-5.5)
    latents = encode(model, params, IMAGES).mean
    found = decoded(model, params, latents)
    dense = isinstance(model, jaxvae.DenseVAE)
    decode = oracle.dense_vae(params, model.image_shape)[1] if dense else oracle.conv_vae(params, levels=2)[1]
    scale = oracle.dense_log_scale if dense else oracle.conv_log_scale
    for i, latent in enumerate(np.asarray(latents, np.float64)):
        np.testing.assert_allclose(found.mean[i], decode(latent), rtol=1e-4, atol=1e-5)
        expected = -5.5 if kind == "shared" else scale(params, latent, model.image_shape)
        expected = -6 + np.log1p(np.exp(expected + 6))
        got = found.log_scale if kind == "shared" else found.log_scale[i]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    other = params_of(model.clone(decoder_scale="fixed"))
    assert {*params} - {*other} == {"decoder_log_scales" if dense and kind == "pixel" else "decoder_log_scale"}


def test_the_best_shared_scale_is_the_root_mean_squared_error():
    """sigma-VAE, Rybkin et al. 2021, equation 4; only the scale is trained here."""
    model = DENSE.clone(decoder_scale="shared")
    params = params_of(model)
    adam = optax.adam(0.05)

    def nll(log_scale):
        return jnp.mean(jaxvae.elbo_terms(model, {**params, "decoder_log_scale": log_scale}, IMAGES).nll)

    def step(carry, _):
        log_scale, state = carry
        update, state = adam.update(jax.grad(nll)(log_scale), state)
        return (log_scale + update, state), None

    start = jnp.float32(0.0)
    (log_scale, _), _ = jax.jit(lambda: jax.lax.scan(step, (start, adam.init(start)), length=600))()
    means = np.asarray(reconstruct(model, params, IMAGES).mean, np.float64)
    root_mean_square = np.sqrt(np.mean((np.asarray(IMAGES) - means) ** 2))
    assert float(jnp.exp(soft_bound(log_scale))) == pytest.approx(root_mean_square, rel=1e-3)


@both
@pytest.mark.parametrize("kind", ["shared", "pixel"])
def test_the_nll_of_a_perfect_reconstruction_is_bounded(model, kind):
    model = model.clone(decoder_scale=kind)
    params = params_of(model)
    output = decoded(model, params, encode(model, params, IMAGES).mean)
    for log_scale in (-1e4, -30.0, jnp.full(IMAGES.shape, -1e4)):
        nll = jaxvae.gaussian_nll(output.mean, output.mean, log_scale=soft_bound(jnp.asarray(log_scale)))
        assert np.asarray(nll).min() >= -6 + 0.5 * np.log(2 * np.pi) - 1e-5
    np.testing.assert_allclose(soft_bound(jnp.float32(0.0)), 0.0, atol=0.003)


@pytest.mark.parametrize(("model", "kind"), [(DENSE, "shared"), (CONV, "pixel")])
def test_models_with_a_learned_scale_train_and_score(model, kind):
    model, config = model.clone(decoder_scale=kind), jaxvae.TrainConfig(batch_size=5)
    population = jaxvae.grid(learning_rate=[1e-2], log_scale=[0.0, 3.0])
    states, metrics = jaxvae.fit_many(model, config, population, IMAGES, steps=40)
    # The model's own scale replaces that of the hyperparameters.
    np.testing.assert_array_equal(metrics.loss[0], metrics.loss[1])
    assert metrics.loss[0, -1] < metrics.loss[0, 0]
    params = jax.tree.map(lambda leaf: leaf[0], states.params)
    scores = jaxvae.score_batch(model, params, IMAGES, maps=("rec_grad", "kl_grad"), window=1)

    def nll(images):
        return jaxvae.elbo_terms(model, params, images).nll.sum(axis=(1, 2, 3))

    np.testing.assert_allclose(scores.samples.nll, nll(IMAGES), rtol=1e-5)
    expected = jnp.abs(jax.grad(lambda images: nll(images).sum())(IMAGES))
    np.testing.assert_allclose(scores.maps["rec_grad"], expected, atol=1e-4 * float(expected.max()))


@both
def test_unknown_options_are_refused(model):
    with pytest.raises(ValueError, match=r"dropout=1.0: must be at least 0 and below 1"):
        model.clone(dropout=1.0)
    with pytest.raises(ValueError, match=r"decoder_scale='image': unknown; use 'fixed', 'shared', 'pixel'"):
        model.clone(decoder_scale="image")
