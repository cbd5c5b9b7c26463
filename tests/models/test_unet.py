"""The U-Net, a model without a latent."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
import oracle
from jaxvae.models.model import has_latent, reconstruct
from jaxvae.objectives.denoising import denoising_terms, pixel_noise
from jaxvae.runs import capacity

MODEL = jaxvae.UNet((10, 12, 1), features=(4, 8, 6))  # 10 rows are padded to 12
IMAGES = jax.random.uniform(jax.random.key(1), (8, 10, 12, 1))
CONFIG = jaxvae.TrainConfig(batch_size=4)


@pytest.fixture(scope="module")
def params():
    initial = jax.jit(MODEL.init)(jax.random.key(7), IMAGES)["params"]
    keys = iter(jax.random.split(jax.random.key(2), 100))
    return jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(next(keys), leaf.shape), initial)


def test_a_unet_matches_float64(params):
    expected = oracle.unet(params, levels=3)
    means = jax.jit(lambda params, images: reconstruct(MODEL, params, images).mean)(params, IMAGES)
    for i, image in enumerate(np.asarray(IMAGES, np.float64)):
        np.testing.assert_allclose(means[i], expected(image), rtol=1e-4, atol=2e-5)


def test_scores_without_a_latent(params):
    """The KL is 0, and Rec-Grad is the gradient of the NLL; neither depends on the batch."""
    assert not has_latent(MODEL)
    scores = jaxvae.score_batch(MODEL, params, IMAGES, maps=("rec_error", "rec_grad"), window=1)

    def nll(images):
        means = MODEL.apply({"params": params}, images)
        return jaxvae.gaussian_nll(images, means, log_scale=0.0).sum(axis=(1, 2, 3))

    expected = jnp.abs(jax.jit(jax.grad(lambda images: nll(images).sum()))(IMAGES))
    np.testing.assert_allclose(scores.maps["rec_grad"], expected, atol=1e-4 * float(expected.max()))
    np.testing.assert_allclose(scores.samples.nll, jax.jit(nll)(IMAGES), rtol=1e-5)
    np.testing.assert_array_equal(scores.samples.kl, np.zeros(8))
    alone = jaxvae.score_batch(MODEL, params, IMAGES[3:4], maps=("rec_error", "rec_grad"), window=1)
    for name, maps in scores.maps.items():
        np.testing.assert_allclose(alone.maps[name][0], maps[3], atol=1e-5 * np.abs(maps[3]).max() + 1e-6)


@pytest.mark.slow
def test_a_population_of_unets_equals_its_runs():
    objective = functools.partial(denoising_terms, corrupt=functools.partial(pixel_noise, strength=0.2))
    model, population = MODEL.clone(features=(4, 6)), jaxvae.grid(seed=[0, 3], learning_rate=[1e-2])
    states, metrics = jaxvae.fit_many(model, CONFIG, population, IMAGES, steps=10, objective=objective, side_by_side=2)
    for r, seed in enumerate((0, 3)):
        hparams = jaxvae.Hyperparams(learning_rate=1e-2)
        state = jaxvae.init(model, CONFIG, hparams, jax.random.key(seed))
        _, expected = jaxvae.fit(model, CONFIG, hparams, state, IMAGES, steps=10, objective=objective)
        np.testing.assert_allclose(metrics.loss[r], expected.loss, rtol=1e-3)
        assert expected.loss[-1] < expected.loss[0]
    assert jaxvae.score_many(model, states.params, IMAGES).nll.shape == (2, 8)


def test_the_memory_of_unets_is_estimated():
    few, many = (
        capacity.population_bytes(MODEL, runs, side_by_side=1, batch_size=4, scored=8, image_bytes=0) for runs in (1, 4)
    )
    assert 0 < few < many


def test_the_papers_widths_are_the_default():
    shapes = jax.eval_shape(jaxvae.UNet((28, 28, 1)).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 7_698_561
    assert shapes["encoder_levels_3"]["kernel_1"].shape == (3, 3, 512, 512)


def test_a_latent_is_refused():
    with pytest.raises(ValueError, match="latent_size=3: a U-Net has no latent; leave it out"):
        jaxvae.UNet((8, 8, 1), latent_size=3)
    with pytest.raises(jaxvae.InputError, match="latent_size=4: the largest must be that of the model, 0"):
        jaxvae.fit_many(MODEL, CONFIG, jaxvae.grid(latent_size=[2, 4]), IMAGES, steps=1)
