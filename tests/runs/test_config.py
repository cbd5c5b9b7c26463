"""config.json: made from settings, turned back into settings, and read from runs of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from folders import healthy
from jaxvae import ConvVAE, DenseVAE, InputError, Settings, Source
from jaxvae.data.dataset import Dataset, Splits, take
from jaxvae.runs import settings
from jaxvae.runs.config import (
    make_config,
    model_from_config,
    model_to_config,
    read_config,
    settings_of,
    steps_per_epoch,
    total_steps,
)

SOURCE = Source(size=(16,))
CONV = ConvVAE((8, 8, 1), 2, (4, 8))
CONFIG = {
    "data": {"data": "phantom"},
    "images": {},
    "train": {},
    "hparams": {"log_scale": 0.0},
    "arithmetic": "corrected",
    "patience": None,
    "seed": 0,
    "epochs": 1,
}
MODELS = [DenseVAE((8, 8, 1), 2, 8), CONV, CONV.clone(dtype=jnp.bfloat16)]


@pytest.fixture(scope="module")
def splits() -> Splits:
    """10 images to train on and 3 to validate on, 16 x 16."""
    names = tuple(map(str, range(13)))
    everything = Dataset(healthy(13, size=16)[..., None], np.zeros(13, bool), None, names, names, ("good",) * 13)
    return Splits(take(everything, np.arange(10)), take(everything, np.arange(10, 13)), take(everything, np.arange(0)))


def test_defaults_are_the_papers_values(splits: Splits) -> None:
    dense = make_config(SOURCE, splits, Settings(model="dense"))
    assert (dense["model"]["latent_size"], dense["hparams"]["learning_rate"]) == (20, 1e-3)
    conv = make_config(SOURCE, splits, Settings(features=(4, 8)))
    assert (conv["model"]["latent_size"], conv["hparams"]["learning_rate"]) == (256, 1e-4)
    assert (conv["epochs"], conv["steps"], conv["train"]["batch_size"]) == (25, None, 10)


@pytest.mark.parametrize(
    "given",
    [
        Settings(features=(4, 8), seed=3, patience=2, augment="paper", clip_norm=1.0),
        Settings(features=(4,), epochs=7, batch_size=3, schedule="cosine", warmup_epochs=1.5, latent_size=2),
        Settings(features=(4,), steps=10, batch_size=4, schedule="cosine", warmup_epochs=1.0, log_scale=-1.0),
        Settings(model="dense", schedule="exponential", decay_epochs=2.5, decay_rate=0.5, beta=2.0),
        Settings(model="dense", hidden_size=8, steps=3, arithmetic="released", learning_rate=0.1),
    ],
)
def test_settings_of_a_config_make_the_same_config(splits: Splits, given: Settings) -> None:
    settings.check(given, SOURCE)
    config = json.loads(json.dumps(make_config(SOURCE, splits, given)))
    source, again = settings_of(config)
    assert source == SOURCE
    settings.check(again, source)
    assert make_config(source, splits, again) == config


def test_steps_take_the_place_of_epochs(splits: Splits) -> None:
    config = make_config(SOURCE, splits, Settings(features=(4,), steps=7, batch_size=4))
    assert (config["epochs"], config["steps"]) == (None, 7)
    assert (steps_per_epoch(config), total_steps(config)) == (2, 7)
    of_epochs = make_config(SOURCE, splits, Settings(features=(4,), epochs=3, batch_size=4))
    assert total_steps(of_epochs) == 6
    del of_epochs["steps"]  # as in earlier versions
    assert total_steps(of_epochs) == 6


def test_a_warm_up_longer_than_the_cosine_schedule_is_refused(splits: Splits) -> None:
    given = Settings(features=(4,), steps=4, batch_size=4, schedule="cosine", warmup_epochs=2.0)
    with pytest.raises(InputError, match=r"warmup_epochs=2.0: are 4 steps, and must be fewer than `steps` 4"):
        make_config(SOURCE, splits, given)


def test_configs_of_earlier_versions_are_read(tmp_path: Path, splits: Splits) -> None:
    config = make_config(SOURCE, splits, Settings(features=(4,)))
    older = {**config, "images": {**config["images"], "learnt_from": config["images"]["image_names"]}}
    del older["images"]["image_names"], older["steps"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    found = read_config(tmp_path)
    assert found["images"] == config["images"]
    assert settings_of(found) == settings_of(config)


def test_a_config_without_a_length_is_refused(tmp_path: Path, splits: Splits) -> None:
    config = make_config(SOURCE, splits, Settings(features=(4,)))
    (tmp_path / "config.json").write_text(json.dumps({**config, "epochs": None}))
    with pytest.raises(InputError, match=r"config.json: needs either epochs or steps; restore it"):
        read_config(tmp_path)


@pytest.mark.parametrize("batch_size", [0, "4", None])
def test_a_damaged_batch_size_is_refused(splits: Splits, batch_size: object) -> None:
    config = make_config(SOURCE, splits, Settings(features=(4,)))
    with pytest.raises(InputError, match=r"config.json: images.train or train.batch_size is damaged"):
        total_steps(config | {"train": {"batch_size": batch_size}})


@pytest.mark.parametrize(
    "damage", [{"train": {"batch_size": 4}}, {"model": {"name": "ConvVAE"}}, {"hparams": {"gamma": 1}}]
)
def test_a_config_that_gives_no_settings_is_refused(splits: Splits, damage: dict) -> None:
    config = make_config(SOURCE, splits, Settings(features=(4,)))
    with pytest.raises(InputError, match=r"config.json: its settings are not as this version writes them"):
        settings_of(config | damage)


@pytest.mark.parametrize("model", MODELS, ids=["dense", "conv", "bfloat16"])
def test_models_survive_json(model) -> None:
    config = model_to_config(model)
    assert json.loads(json.dumps(config)) == config
    assert model_from_config(config) == model
    assert hash(model_from_config(config)) == hash(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "GAN"}, "model 'GAN' is unknown"),
        ({"depth": 3}, "cannot make that ConvVAE"),
        ({"dtype": "float33"}, "cannot make that ConvVAE"),
    ],
)
def test_a_model_of_another_version_is_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        model_from_config({**model_to_config(CONV), **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b'{"data": {', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "lacks data.data, .*epochs"),
        (json.dumps({**CONFIG, "model": None}).encode(), "lacks model.name,"),
        (json.dumps({**CONFIG, "model": {"name": "ConvVAE"}, "hparams": {}}).encode(), "lacks hparams.log_scale,"),
    ],
)
def test_a_damaged_config_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: {message}") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
