"""Laws of populations: each run is the run on its own, whatever its neighbours do and wherever it is computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from jaxvae import parity
from jaxvae.population.fit_many import init_many

MODELS = [jaxvae.DenseVAE((8, 8, 1), 6, 16), jaxvae.ConvVAE((8, 8, 1), 6, (3, 5))]
CONFIG = jaxvae.TrainConfig(batch_size=4)


def data(count=12):
    return jax.random.uniform(jax.random.key(9), (count, 8, 8, 1))


def single(model, *, seed=0, images=None, steps=5, objective=jaxvae.elbo_terms, augment=None, **hparams):
    hparams = jaxvae.Hyperparams(**{"learning_rate": 1e-2, **hparams})
    state = jaxvae.init(model, CONFIG, hparams, jax.random.key(seed))
    images = data() if images is None else images
    return jaxvae.fit(model, CONFIG, hparams, state, images, steps=steps, objective=objective, augment=augment)


def assert_run(states, metrics, r, expected, tolerance=1e-5):
    state, expected_metrics = expected
    np.testing.assert_allclose(np.asarray(metrics.loss)[r], expected_metrics.loss, rtol=tolerance)
    for many, one in zip(jax.tree.leaves(states.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(np.asarray(many)[r], one, atol=tolerance)


def test_a_grid_is_the_product_of_its_axes_the_last_fastest():
    runs = jaxvae.grid(seed=[0, 1], log_scale=[0.5, -1.0, -2.0])
    assert len(runs) == 6
    np.testing.assert_array_equal(runs.seed, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(runs.hparams.log_scale, [0.5, -1.0, -2.0] * 2)
    np.testing.assert_allclose(runs.hparams.learning_rate, 1e-3)
    assert runs.index is None
    assert runs.latent_mask is None
    np.testing.assert_array_equal(runs[2:4].seed, [0, 1])
    assert len(jaxvae.grid()) == 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("together", [1, 3])
def test_runs_of_a_population_are_single_runs(model, together):
    runs = jaxvae.grid(seed=[3, 4], learning_rate=[1e-2, 1e-3], beta=[1.0, 4.0], log_scale=[-0.5])
    states, metrics = jaxvae.fit_many(model, CONFIG, runs, data(), steps=5, together=together)
    assert metrics.loss.shape == (8, 5)
    for r, (seed, rate, beta) in enumerate((s, lr, b) for s in (3, 4) for lr in (1e-2, 1e-3) for b in (1.0, 4.0)):
        expected = single(model, seed=seed, learning_rate=rate, beta=beta, log_scale=-0.5)
        assert_run(states, metrics, r, expected)


def test_a_population_is_augmented_as_its_runs_are():
    def brightened(key, images):
        return images * jax.random.uniform(key, (len(images), 1, 1, 1), minval=0.5, maxval=1.5)

    runs = jaxvae.grid(seed=[0, 3], learning_rate=[1e-2])
    states, metrics = jaxvae.fit_many(MODELS[0], CONFIG, runs, data(), steps=5, augment=brightened)
    for r, seed in enumerate((0, 3)):
        assert_run(states, metrics, r, single(MODELS[0], seed=seed, augment=brightened))


@pytest.mark.slow
@pytest.mark.parametrize("objective", [jaxvae.elbo_terms, parity.dense_elbo_terms])
@pytest.mark.parametrize("model", MODELS)
def test_a_masked_latent_is_a_small_one(model, objective):
    """The same losses, parameters, scores and gradients as a model that has no more latents."""
    runs = jaxvae.grid(learning_rate=[1e-2], latent_size=[2, 6, 3])
    states, metrics = jaxvae.fit_many(model, CONFIG, runs, data(), steps=5, objective=objective)
    scores = jaxvae.score_many(model, states.params, data(5))
    for r, size in enumerate((2, 6, 3)):
        small = model.clone(latent_size=size)
        state, expected = single(small, objective=objective)
        np.testing.assert_allclose(metrics.loss[r], expected.loss, rtol=1e-5)
        np.testing.assert_allclose(metrics.grad_norm[r], expected.grad_norm, rtol=1e-4)
        np.testing.assert_allclose(scores.elbo[r], jaxvae.sample_scores(small, state.params, data(5)).elbo, rtol=1e-5)
        params = jax.tree.map(lambda leaf, r=r: np.asarray(leaf)[r], states.params)
        maps = jaxvae.pixel_scores(model, params, data(5))
        for got, wanted in zip(maps, jaxvae.pixel_scores(small, state.params, data(5)), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
        # What the small model lacks stays zero: as many elements are not as the small model has.
        assert sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(params)) == sum(
            leaf.size for leaf in jax.tree.leaves(state.params)
        )


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_a_population_draws_the_same_whatever_the_default_generator(generator):
    model, config, runs = MODELS[0], jaxvae.TrainConfig(batch_size=4), jaxvae.grid(seed=[3, 4])
    expected = init_many(model, config, runs).params
    with jax.default_prng_impl(generator):
        params = init_many(model, config, runs).params
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("kind", [np.array, list])
def test_a_held_out_class_is_left_out(kind):
    model, labels = MODELS[0], np.array([0, 1, 2] * 4)
    runs = jaxvae.grid(learning_rate=[1e-2], held_out_class=[2, 0], labels=kind(labels))
    states, metrics = jaxvae.fit_many(model, CONFIG, runs, data(), steps=5)
    for r, held_out in enumerate((2, 0)):
        assert_run(states, metrics, r, single(model, images=data()[labels != held_out]))


@pytest.mark.parametrize("count", [9, 15])
def test_images_that_the_labels_are_not_of_are_refused(count):
    runs = jaxvae.grid(held_out_class=[2, 0], labels=np.array([0, 1, 2] * 4))
    with pytest.raises(jaxvae.InputError, match=f"labels: there were 12, and there are {count} images"):
        jaxvae.fit_many(MODELS[0], CONFIG, runs, data(count), steps=1)


def test_a_run_that_diverges_is_frozen_and_no_other_notices():
    model, rates = MODELS[0], [1e-2, 1e30, 1e-2]
    runs = jaxvae.grid(learning_rate=rates)
    for together in (1, 3):
        states, metrics = jaxvae.fit_many(model, CONFIG, runs, data(), steps=5, together=together)
        assert np.isnan(metrics.loss[1, -1])
        assert all(np.isfinite(np.asarray(leaf)[1]).all() for leaf in jax.tree.leaves(states.params))
        first_bad = int(np.flatnonzero(np.isnan(metrics.loss[1]))[0])
        assert np.isnan(metrics.loss[1, first_bad:]).all()
        for r in (0, 2):
            assert_run(states, metrics, r, single(model))


@pytest.mark.optimized
@pytest.mark.parametrize("together", [1, 3])
def test_a_population_that_goes_on_is_one_that_never_stopped(together):
    """The run that diverges at its first step stays frozen in the second call."""
    model, images = MODELS[0], data(10)
    runs = jaxvae.grid(learning_rate=[1e-3, 1e30, 1e-2])
    whole, expected = jaxvae.fit_many(model, CONFIG, runs, images, steps=7, together=together)
    states, first = jaxvae.fit_many(model, CONFIG, runs, images, steps=4, together=together)
    states, second = jaxvae.fit_many(model, CONFIG, runs, images, steps=3, states=states, together=together)
    np.testing.assert_array_equal(np.concatenate([first.loss, second.loss], axis=1), expected.loss)
    assert np.isnan(second.loss[1]).all()
    assert np.isfinite(second.loss[::2]).all()
    for got, wanted in zip(jax.tree.leaves(states.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert states.step.tolist() == [7, 7, 7]


def test_scores_of_a_population_are_those_of_its_runs():
    model, images = MODELS[1], data(7)
    runs = jaxvae.grid(seed=[0, 1], log_scale=[0.0, -1.0])
    params = init_many(model, CONFIG, runs).params
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    many = jaxvae.score_many(model, params, images, log_scale=runs.hparams.log_scale, batch_size=3)
    drawn = jaxvae.score_many(model, params, images, keys, batch_size=7, score=parity.sample_scores)
    for r in range(4):
        run = jax.tree.map(lambda leaf, r=r: leaf[r], params)
        one = jaxvae.sample_scores(model, run, images, log_scale=runs.hparams.log_scale[r])
        np.testing.assert_allclose(many.elbo[r], one.elbo, rtol=1e-5)
        one = parity.sample_scores(model, run, images, jax.random.fold_in(jax.random.key(r), 0))
        np.testing.assert_allclose(drawn.nll[r], one.nll, rtol=1e-5)


def test_one_program_for_all_runs_and_other_numbers(compilations):
    model, images = MODELS[0], data()
    jax.block_until_ready(jaxvae.fit_many(model, CONFIG, jaxvae.grid(seed=[0, 1]), images, steps=2))
    other = jaxvae.grid(seed=[5, 6], learning_rate=[1e-4], beta=[2.0])
    compilations.clear()
    jax.block_until_ready(jaxvae.fit_many(model, CONFIG, other, images, steps=2))
    assert compilations == []


@pytest.mark.parametrize(
    ("axes", "complaint"),
    [
        ({"rate": [1]}, "rate: no such axis; the axes are seed, learning_rate"),
        ({"beta": []}, "beta: no values; give at least one"),
        ({"seed": 3}, r"seed=3 is a value; give a list of them, \[3\]"),
        ({"seed": "12"}, r"seed='12' is a value; give a list of them, \['12'\]"),
        ({"beta": ["a"]}, "beta='a': give a number of at least 0"),
        ({"learning_rate": [-1.0]}, "learning_rate=-1.0: give a number of at least 0"),
        ({"log_scale": [float("nan")]}, "log_scale=nan: give a number"),
        ({"latent_size": [2.5]}, "latent_size=2.5: give a whole number of at least 1"),
        ({"held_out_class": [1]}, "held_out_class needs the labels"),
        (
            {"held_out_class": [7], "labels": np.array([0, 1])},
            "held_out_class=7: no image is of that class; choose from 0",
        ),
        ({"held_out_class": [0, 1], "labels": np.array([0, 1, 1])}, "the classes have different numbers of images"),
    ],
)
def test_what_no_grid_can_be_made_of_is_said_in_one_line(axes, complaint):
    with pytest.raises(jaxvae.InputError, match=complaint):
        jaxvae.grid(**axes)


def test_latents_that_are_not_the_models_are_refused():
    with pytest.raises(jaxvae.InputError, match="the largest latent_size is 9 and the model's 6"):
        jaxvae.fit_many(MODELS[0], CONFIG, jaxvae.grid(latent_size=[2, 9]), data(), steps=1)
