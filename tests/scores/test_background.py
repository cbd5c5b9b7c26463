"""The likelihood ratio: the corruption, the background model and the score."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

import jaxvae
from image_score_laws import check_laws, model_and_images
from jaxvae.models.model import init_params
from jaxvae.scores import background
from jaxvae.train import TrainConfig, run_key


def test_values_are_replaced_by_uniform_ones_at_the_given_rate() -> None:
    images = jnp.full((8, 32, 32, 3), 9.0)
    for strength in (0.0, 0.2, 1.0):
        corrupted = np.asarray(background.corrupt(jax.random.key(0), images, strength, -1.0, 3.0))
        replaced = corrupted[corrupted != 9]
        assert replaced.size / corrupted.size == pytest.approx(strength, abs=0.01)
        if strength:
            assert kstest(replaced, "uniform", (-1, 4)).pvalue > 0.01


def test_one_program_serves_all_strengths() -> None:
    corrupt = jax.jit(background.corrupt)
    for strength in (0.1, 0.3):
        corrupt(jax.random.key(0), jnp.zeros((2, 4, 4, 1)), jnp.float32(strength))
    assert corrupt._cache_size() == 1


def test_without_corruption_the_background_model_equals_a_plain_training() -> None:
    model, params, _ = model_and_images("dense")
    # Copies of one image, because the two draw different orders.
    images = np.repeat(np.asarray(jax.random.uniform(jax.random.key(2), (1, 8, 8, 1))), 8, axis=0)
    fitted = background.fit(model, params, images, strength=0.0, steps=3, batch_size=8, log_scale=-0.5, seed=4)
    config, hparams = TrainConfig(batch_size=8), jaxvae.Hyperparams(1e-3, 1.0, -0.5)
    state = jaxvae.init(model, config, hparams, run_key(4))
    state, _ = jaxvae.fit(model, config, hparams, state, images, steps=3)
    initial = init_params(model, jax.random.split(run_key(4))[0])
    for got, expected, before in zip(*map(jax.tree.leaves, (fitted["params"], state.params, initial)), strict=True):
        assert np.abs(expected - before).max() > 1e-3
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_background_model_learns_and_repeats() -> None:
    model, params, _ = model_and_images("dense")
    rng = np.random.default_rng(0)
    images = (rng.random((40, 8, 8, 1)) * 20 + 200 * (np.arange(8) < 3)[:, None, None]).astype(np.uint8)
    settings = {"steps": 120, "batch_size": 16, "learning_rate": 1e-2, "log_scale": -2.0}
    state = background.fit(model, params, images, **settings)

    def elbo(params: dict) -> float:
        corrupted = background.corrupt(jax.random.key(8), images / np.float32(255), 0.2)
        return float(jaxvae.sample_scores(model, params, corrupted, log_scale=-2.0).elbo.mean())

    initial = init_params(model, jax.random.key(0))
    assert elbo(state["params"]) < elbo(initial) - 100
    again = background.fit(model, params, images, **settings)
    jax.tree.map(np.testing.assert_array_equal, state, again)


def test_the_score_is_the_difference_of_two_elbos() -> None:
    model, params, images = model_and_images("conv")
    other = jax.tree.map(lambda leaf: -leaf, params)
    got = background.score(model, params, images, log_scale=-1.0, state={"params": other})["likelihood_ratio"]
    own, of_other = (jaxvae.sample_scores(model, some, images, log_scale=-1.0).elbo for some in (params, other))
    np.testing.assert_allclose(got, own - of_other, rtol=1e-4, atol=1e-3)
    same = background.score(model, params, images, state={"params": params})["likelihood_ratio"]
    np.testing.assert_array_equal(same, 0)


@pytest.mark.parametrize("kind", ["dense", "spatial"])
def test_the_laws_of_scores_hold(kind: str) -> None:
    model, params, images = model_and_images(kind)
    check_laws(background, kind, background.fit(model, params, np.asarray(images), steps=2))


def test_bad_arguments_are_refused() -> None:
    model, params, images = model_and_images("dense")
    with pytest.raises(jaxvae.InputError, match=r"strength=1.5: must be in 0..1"):
        background.fit(model, params, np.asarray(images), strength=1.5)
    with pytest.raises(jaxvae.InputError, match="likelihood_ratio: needs a background model; call fit"):
        background.score(model, params, images)
