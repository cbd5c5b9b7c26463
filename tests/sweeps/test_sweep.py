"""A sweep from Python: its outcome, its memory, and the settings of its best row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvae
from folders import write_benchmark
from jaxvae.data.kinds import Source, open_training
from jaxvae.errors import ArgumentError
from jaxvae.objectives import OBJECTIVES, NamedObjective
from jaxvae.runs import capacity
from jaxvae.runs.config import make_config
from jaxvae.runs.settings import Recipe
from jaxvae.scores import METHODS, SCORES, Method, Score
from jaxvae.sweeps import combinations, program, sweep
from jaxvae.sweeps.combinations import Axes
from jaxvae.sweeps.program import compile_program, shapes_of, train_and_test
from jaxvae.train import run_key

RECIPE = Recipe(features=(4, 8), batch_size=4, steps=5)


def test_python_sweeps_what_the_command_sweeps(tmp_path):
    """Two sizes make an axis; 5 steps are two epochs of 2 steps and a half."""
    source = Source(data=str(write_benchmark(tmp_path / "data", train=9)))
    lines = []
    axes = Axes(seed=(0,), latent_size=(2,), size=(16, 32), hold_out=None)
    found = sweep.run(tmp_path / "sweep", source, RECIPE, axes, say=lines.append)
    assert found is not None
    assert [row["size"] for row in found.rows] == [16, 32]
    assert (found.axes, found.score) == (["size"], "pixel_average_precision/elbo_grad")
    assert found.test_images == {"test": 8, "anomalous": 4}
    assert "2 runs in 2 programs" in lines[0]
    # The loss of a row is the mean over the last epoch.
    images = open_training(replace(source, size=(16,))).train.images
    model, config = jaxvae.ConvVAE((16, 16, 1), 2, (4, 8)), jaxvae.TrainConfig(batch_size=4)
    hparams = jaxvae.Hyperparams(learning_rate=1e-4)
    state = jaxvae.init(model, config, hparams, run_key(0))
    _, metrics = jaxvae.fit(model, config, hparams, state, jnp.asarray(images), steps=5)
    assert found.rows[0]["loss"] == pytest.approx(float(metrics.loss[-2:].mean()), rel=1e-4)
    best = max(found.rows, key=lambda row: row[found.score])
    own, settings = found.best
    assert (own.size, settings.latent_size, settings.steps) == ((best["size"],), 2, 5)
    # A second call trains nothing.
    again = sweep.run(tmp_path / "sweep", source, RECIPE, axes, say=lines.append)
    assert again == found
    assert "2 of them done" in lines[1]


def test_a_program_that_was_compiled_ahead_compiles_nothing_large(tmp_path, monkeypatch, compilations):
    """5 steps are two epochs of 2 steps and a half: programs of 2 steps and of 1."""
    source = Source(data=str(write_benchmark(tmp_path / "data", train=12)), validation=0.25, size=(16,))
    splits = open_training(source)
    config = make_config(source, splits, combinations.settings_of(RECIPE, source, {"latent_size": 4}))
    runs = [{"seed": 0, "learning_rate": 1e-3, "beta": 1.0, "log_scale": 0.0, "latent_size": size} for size in (2, 4)]
    with monkeypatch.context() as patched:  # The device has no room for the scores of a second program.
        patched.setattr(program, "validation_elbo", None)
        patched.setattr(program, "score_images", None)
        compile_program(config, runs, shapes_of(splits))
    large = {f"jit({name})" for name in ("_init_many", "_fit_many", "_score_many", "score_batch")}
    assert large == large & {*compilations}
    compilations.clear()
    rows = train_and_test(config, runs, splits)
    assert {"validation_elbo", "pixel_auroc/elbo_grad"} <= rows[0].keys()
    assert not large & {*compilations}


def test_programs_of_the_same_shapes_are_compiled_once(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        sweep, "compile_program", lambda _, runs, shapes: compiled.append((shapes.train.shape[1], runs))
    )
    monkeypatch.setattr(
        sweep, "train_and_test", lambda _, runs, *__: [{**run, "loss": 1.0, "diverged": False} for run in runs]
    )
    source = Source(data=str(write_benchmark(tmp_path / "data", train=9)))
    axes = Axes(seed=(0, 1, 2), beta=(1.0, 2.0), latent_size=(2,), size=(16, 32))
    sweep.run(tmp_path / "sweep", source, RECIPE, axes, runs_per_program=4)
    assert sorted((size, len(runs)) for size, runs in compiled) == [(16, 2), (16, 4), (32, 2), (32, 4)]


def test_programs_of_other_latent_sizes_are_compiled_too(tmp_path, monkeypatch):
    """The initial states are a program for its latent sizes."""
    compiled = []
    monkeypatch.setattr(sweep, "compile_program", lambda _, runs, __: compiled.append([r["latent_size"] for r in runs]))
    monkeypatch.setattr(
        sweep, "train_and_test", lambda _, runs, *__: [{**run, "loss": 1.0, "diverged": False} for run in runs]
    )
    source = Source(data=str(write_benchmark(tmp_path / "data", train=9)), size=(16,))
    axes = Axes(seed=(0, 1), latent_size=(2, 3, 4, 5))
    sweep.run(tmp_path / "sweep", source, RECIPE, axes, runs_per_program=2)
    assert sorted(map(sorted, compiled)) == [[2, 3], [4, 5]]


def test_the_runs_per_program_that_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "free_bytes", lambda: 10_000_000)
    monkeypatch.setattr(sweep, "_bytes", lambda form, runs: 4_000_000 * runs)
    with pytest.raises(ArgumentError, match="give `runs_per_program` 2") as raised:
        sweep.run(tmp_path / "sweep", Source(size=(16,)), RECIPE, Axes())
    assert (raised.value.name, raised.value.value) == ("runs_per_program", 8)
    assert not (tmp_path / "sweep").exists()


def test_a_single_valued_axis_becomes_a_source_setting():
    source, fixed = combinations.split(Axes(size=(32,), scaling=(1, 2), hold_out=(3,)), Source())
    assert (source.size, source.scaling, source.hold_out) == ((32,), 1, 3)
    assert fixed == {"scaling": (1, 2), "hold_out": (3,)}


@pytest.mark.parametrize("model", ["dense", "conv"])
def test_width_scales_the_network_of_the_model(model):
    settings = combinations.settings_of(Recipe(model=model), Source(), {"width": 0.5, "beta": 2.0, "loss": 1.0})
    assert settings.beta == 2
    expected = (200, None) if model == "dense" else (None, (8, 16, 32, 128))
    assert (settings.hidden_size, settings.features) == expected


def test_a_score_without_needs_is_fitted_with_the_weights_of_each_run(tmp_path):
    """Such a score may still use the model, as the reconstruction error of a network without a latent does."""
    seen = []

    def fit(model, params, images, *, log_scale, likelihood):
        seen.append(float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(params))))
        return {"error": jnp.abs(images - jaxvae.reconstruct(model, params, images).mean).mean()}

    def score(model, params, images, *, log_scale, likelihood, state):
        error = jnp.abs(images - jaxvae.reconstruct(model, params, images).mean)
        return {"relative": jnp.abs(error.mean(axis=(1, 2, 3)) - state["error"])}

    relative = Score("relative", "Relative error", "|e - healthy e|", "#000000", of_images=True)
    jaxvae.scores.add(Method("relative_error", (relative,), fit=fit, score=score))
    try:
        source = Source(data=str(write_benchmark(tmp_path / "data", train=9)), size=(16,))
        splits = open_training(source)
        config = make_config(source, splits, combinations.settings_of(RECIPE, source, {"latent_size": 2}))
        runs = [
            {"seed": seed, "learning_rate": 1e-3, "beta": 1.0, "log_scale": 0.0, "latent_size": 2} for seed in (0, 1)
        ]
        rows = train_and_test(config, runs, splits, ["relative"])
    finally:
        del METHODS["relative_error"], SCORES["relative"]
    assert len(set(seen)) == 2
    assert all(0 <= row["image_auroc/relative"] <= 1 for row in rows)


def test_image_scores_of_a_sweep_have_the_likelihood_of_its_objective(tmp_path, monkeypatch):
    def laplace(images, output, log_scale):
        return jnp.abs(images - output) * jnp.exp(-log_scale) + log_scale + jnp.log(2.0)

    terms = partial(jaxvae.elbo_terms, likelihood=laplace)
    monkeypatch.setitem(OBJECTIVES, "laplace", NamedObjective("laplace", terms=terms, likelihood=laplace))
    source = Source(data=str(write_benchmark(tmp_path / "data", train=9)), size=(16,))
    splits, recipe = open_training(source), replace(RECIPE, objective="laplace")
    config = make_config(source, splits, combinations.settings_of(recipe, source, {"latent_size": 2}))
    model = jaxvae.ConvVAE((16, 16, 1), 2, (4, 8))
    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    params = model.init(jax.random.key(0), images)["params"]
    found = program._image_scores(config)(model, params, images, log_scale=0.5)
    error = np.abs(images - np.asarray(jaxvae.reconstruct(model, params, images).mean))
    expected = error.sum(axis=(1, 2, 3)) * np.exp(-0.5) + 256 * (0.5 + np.log(2))
    np.testing.assert_allclose(found.nll, expected, rtol=1e-5)
    assert program._image_scores(config) is program._image_scores(config)  # or each program would compile it again
