"""A sweep from Python: its outcome, its memory, and the settings of its best row."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import pytest

import jaxvae
from folders import write_benchmark
from jaxvae.data.kinds import Source, open_training
from jaxvae.errors import ArgumentError
from jaxvae.runs import capacity
from jaxvae.runs.settings import Recipe
from jaxvae.sweeps import combinations, sweep
from jaxvae.sweeps.combinations import Axes
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


def test_the_runs_per_program_that_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(capacity, "free_bytes", lambda: 10_000_000)
    monkeypatch.setattr(sweep, "_bytes", lambda config, splits, runs: 4_000_000 * runs)
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
    expected = (200, (16, 32, 64, 256)) if model == "dense" else (400, (8, 16, 32, 128))
    assert (settings.hidden_size, settings.features) == expected
