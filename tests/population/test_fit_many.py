"""Each run of a population equals the run trained alone, on any device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import jaxvae
from jaxvae import parity
from jaxvae.ops.forms import PLATFORMS
from jaxvae.population.fit_many import compile_fit_many, init_many, side_by_side_on
from jaxvae.population.score_many import compile_score_many

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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("side_by_side", [1, 3])
def test_runs_of_a_population_equal_single_runs(model, side_by_side):
    population = jaxvae.grid(seed=[3, 4], learning_rate=[1e-2, 1e-3], beta=[1.0, 4.0], log_scale=[-0.5])
    states, metrics = jaxvae.fit_many(model, CONFIG, population, data(), steps=5, side_by_side=side_by_side)
    assert metrics.loss.shape == (8, 5)
    for r, (seed, rate, beta) in enumerate((s, lr, b) for s in (3, 4) for lr in (1e-2, 1e-3) for b in (1.0, 4.0)):
        expected = single(model, seed=seed, learning_rate=rate, beta=beta, log_scale=-0.5)
        assert_run(states, metrics, r, expected)


def test_augmentation_of_a_population_equals_that_of_its_runs():
    def brightened(key, images):
        return images * jax.random.uniform(key, (len(images), 1, 1, 1), minval=0.5, maxval=1.5)

    population = jaxvae.grid(seed=[0, 3], learning_rate=[1e-2])
    states, metrics = jaxvae.fit_many(MODELS[0], CONFIG, population, data(), steps=5, augment=brightened)
    for r, seed in enumerate((0, 3)):
        assert_run(states, metrics, r, single(MODELS[0], seed=seed, augment=brightened))


@pytest.mark.slow
@pytest.mark.parametrize("objective", [jaxvae.elbo_terms, parity.dense_elbo_terms])
@pytest.mark.parametrize("model", MODELS)
def test_a_masked_latent_equals_a_smaller_latent(model, objective):
    """The losses, parameters, scores and gradients equal those of a smaller model."""
    population = jaxvae.grid(learning_rate=[1e-2], latent_size=[2, 6, 3])
    states, metrics = jaxvae.fit_many(model, CONFIG, population, data(), steps=5, objective=objective)
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
        # The padding stays zero: as many elements are not zero as the smaller model has.
        assert sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(params)) == sum(
            leaf.size for leaf in jax.tree.leaves(state.params)
        )


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_initial_weights_do_not_depend_on_the_default_generator(generator):
    model, config, population = MODELS[0], jaxvae.TrainConfig(batch_size=4), jaxvae.grid(seed=[3, 4])
    expected = init_many(model, config, population).params
    with jax.default_prng_impl(generator):
        params = init_many(model, config, population).params
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("kind", [np.array, list])
def test_a_held_out_class_is_not_trained_on(kind):
    model, labels = MODELS[0], np.array([0, 1, 2] * 4)
    population = jaxvae.grid(learning_rate=[1e-2], hold_out=[2, 0], labels=kind(labels))
    states, metrics = jaxvae.fit_many(model, CONFIG, population, data(), steps=5)
    for r, held_out in enumerate((2, 0)):
        assert_run(states, metrics, r, single(model, images=data()[labels != held_out]))


@pytest.mark.parametrize("count", [9, 15])
def test_another_number_of_images_than_labels_is_refused(count):
    population = jaxvae.grid(hold_out=[2, 0], labels=np.array([0, 1, 2] * 4))
    with pytest.raises(jaxvae.InputError, match=f"labels: 12 for {count} images"):
        jaxvae.fit_many(MODELS[0], CONFIG, population, data(count), steps=1)


def test_a_diverged_run_is_frozen_and_others_go_on():
    model, rates = MODELS[0], [1e-2, 1e30, 1e-2]
    population = jaxvae.grid(learning_rate=rates)
    for side_by_side in (1, 3):
        states, metrics = jaxvae.fit_many(model, CONFIG, population, data(), steps=5, side_by_side=side_by_side)
        assert np.isnan(metrics.loss[1, -1])
        assert all(np.isfinite(np.asarray(leaf)[1]).all() for leaf in jax.tree.leaves(states.params))
        first_bad = int(np.flatnonzero(np.isnan(metrics.loss[1]))[0])
        assert np.isnan(metrics.loss[1, first_bad:]).all()
        for r in (0, 2):
            assert_run(states, metrics, r, single(model))


@pytest.mark.optimized
@pytest.mark.parametrize("side_by_side", [1, 3])
def test_a_continued_population_equals_an_uninterrupted_one(side_by_side):
    """The run that diverged at its first step stays frozen in the second call."""
    model, images = MODELS[0], data(10)
    population = jaxvae.grid(learning_rate=[1e-3, 1e30, 1e-2])
    whole, expected = jaxvae.fit_many(model, CONFIG, population, images, steps=6, side_by_side=side_by_side)
    states, first = jaxvae.fit_many(model, CONFIG, population, images, steps=3, side_by_side=side_by_side)
    states, second = jaxvae.fit_many(
        model, CONFIG, population, images, steps=3, states=states, side_by_side=side_by_side
    )
    np.testing.assert_array_equal(np.concatenate([first.loss, second.loss], axis=1), expected.loss)
    assert np.isnan(second.loss[1]).all()
    assert np.isfinite(second.loss[::2]).all()
    for got, wanted in zip(jax.tree.leaves(states.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert states.step.tolist() == [6, 6, 6]


def test_other_hyperparameters_use_the_compiled_program(compilations):
    model, images = MODELS[0], data()
    jax.block_until_ready(jaxvae.fit_many(model, CONFIG, jaxvae.grid(seed=[0, 1]), images, steps=2))
    other = jaxvae.grid(seed=[5, 6], learning_rate=[1e-4], beta=[2.0])
    compilations.clear()
    jax.block_until_ready(jaxvae.fit_many(model, CONFIG, other, images, steps=2))
    assert compilations == []


def test_a_population_compiled_in_a_thread_compiles_nothing_later(compilations):
    """The latent sizes of a population share one program, and every size is initialized in one."""
    model, images = jaxvae.DenseVAE((8, 8, 1), 7, 16), data()
    shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    population = jaxvae.grid(latent_size=[2, 7, 3], hold_out=[1], labels=np.arange(12) % 3)
    keys = jax.vmap(jax.random.key)(population.seed)
    scoring = {"log_scale": population.hparams.log_scale, "score": parity.sample_scores}
    jax.block_until_ready((keys, images))

    def prepare():
        states = compile_fit_many(model, CONFIG, population, shape, steps=2)
        compile_score_many(model, states.params, shape, keys, **scoring)

    compilations.clear()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(prepare).result()
    assert len(compilations) == 3
    compilations.clear()
    states, _ = jaxvae.fit_many(model, CONFIG, population, images, steps=2)
    jax.block_until_ready(jaxvae.score_many(model, states.params, images, keys, **scoring))
    assert compilations == []


def test_a_larger_latent_than_the_models_is_refused():
    with pytest.raises(jaxvae.InputError, match="latent_size=9: the largest must be that of the model, 6"):
        jaxvae.fit_many(MODELS[0], CONFIG, jaxvae.grid(latent_size=[2, 9]), data(), steps=1)


@pytest.mark.parametrize(
    ("platform", "model", "runs", "expected"),
    [
        ("cpu", "dense", 64, 1),
        ("tpu", "dense", 64, 8),  # 13 would fit; 64 is eight times 8
        ("tpu", "dense", 13, 13),
        ("tpu", "dense", 17, 13),  # 17 has no divisor near 13
        ("tpu", "conv", 16, 2),
        ("cuda", "dense", 126, 126),
        ("cuda", "conv", 16, 16),
        ("cuda", "conv", 3, 3),
    ],
)
def test_runs_side_by_side_fit_the_platform(platform, model, runs, expected):
    network = jaxvae.DenseVAE((28, 28, 1)) if model == "dense" else jaxvae.ConvVAE((64, 64, 1))
    assert side_by_side_on(PLATFORMS[platform], network, runs) == expected
