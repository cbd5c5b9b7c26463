"""config.json of a run: the images and settings that decide its result."""

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

import jaxvae
from jaxvae import files
from jaxvae.data.dataset import Splits
from jaxvae.data.kinds import Source, describe, from_config, kind_of, with_new_names
from jaxvae.errors import ArgumentError, InputError, command
from jaxvae.models import MODELS
from jaxvae.models.model import Model
from jaxvae.objectives import OBJECTIVES, NamedObjective
from jaxvae.objectives.elbo import Likelihood, gaussian_nll
from jaxvae.parity import ARITHMETICS
from jaxvae.runs import settings as run_settings
from jaxvae.runs.settings import EPOCHS, Settings, network_of
from jaxvae.train import Objective

Config = dict[str, Any]

# The types of what config.json has to hold for a run to be opened.
FACTS = {
    **dict.fromkeys(("data.data", "model.name", "arithmetic"), str),
    **dict.fromkeys(("images", "train"), dict),
    **dict.fromkeys(("patience", "epochs", "steps?"), int | None),
    **{"volumes?": dict | None, "hparams.log_scale": int | float, "seed": int},
}
# Settings that are entries of config.json as they are. Those of earlier versions may lack the first two.
SAME = ("objective", "augment", "arithmetic", "patience", "seed")

# What runs and sweeps of earlier versions do not name, as `files.flat` writes it.
EARLIER = {"augment": "none", "objective": "vae", "model.dropout": 0.0, "model.decoder_scale": "fixed"}


def make_config(source: Source, splits: Splits, settings: Settings) -> Config:
    """The content of config.json, with the paper's values where `settings` has None.

    Args:
      source: the images, as `settings.check` accepts them with the settings.

    Raises:
      InputError: the network cannot halve images of this size that often; the warm-up does not end before training.
    """
    shape, network = splits.train.images.shape[1:], network_of(settings, source)
    given = {name: getattr(settings, name, None) for name in network.settings}
    fields = {name: network.settings[name] if value is None else value for name, value in given.items()}
    if "features" in fields and network.latent:  # A U-Net pads images whose sides cannot be halved.
        _check_halvings(fields["features"], shape, kind_of(source).resizing)
    sizes = {"latent_size": settings.latent_size or network.latent_size} if network.latent else {}
    model = network(shape, **sizes, **fields)
    batch_size = min(settings.batch_size or network.batch_size, len(splits.train))
    epoch = len(splits.train) // batch_size
    epochs = settings.epochs or EPOCHS
    warmup, decay = round(settings.warmup_epochs * epoch), round(settings.decay_epochs * epoch)
    if settings.schedule == "cosine":
        decay = (settings.steps or epochs * epoch) - warmup
        if decay < 1 and settings.steps:
            problem = f"are {warmup} steps, and must be fewer than `steps` {settings.steps}"
            raise ArgumentError("warmup_epochs", settings.warmup_epochs, problem)
    return {
        "jaxvae": jaxvae.__version__,
        **describe(source, splits),
        "model": model_to_config(model),
        "train": {
            "batch_size": batch_size,
            "clip_norm": settings.clip_norm,
            "schedule": settings.schedule,
            "warmup_steps": warmup,
            "decay_steps": max(1, decay),
            "decay_rate": settings.decay_rate,
        },
        "hparams": {
            "learning_rate": settings.learning_rate or network.learning_rate,
            **{name: getattr(settings, name) for name in ("beta", "log_scale")},
        },
        **{name: getattr(settings, name) for name in SAME},
        "objective": run_settings.objective_of(settings, source).name,
        "epochs": None if settings.steps else epochs,
        "steps": settings.steps,
    }


def settings_of(config: Config) -> tuple[Source, Settings]:
    """The source and settings from which `make_config` made a configuration.

    Raises:
      InputError: another version of jaxvae wrote the configuration.
    """
    source = from_config(config["data"])
    try:
        model, train, epoch = config["model"], config["train"], steps_per_epoch(config)
        network = MODELS[model["name"]]
        there = {name: model[name] for name in network.settings if name in model}
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in there.items()}
        decays = train["schedule"] in ("exponential", "step")
        decay = {"decay_epochs": train["decay_steps"] / epoch, "decay_rate": train["decay_rate"]} if decays else {}
        settings = Settings(
            model=network.name,
            **fields,
            epochs=config["epochs"],
            steps=config.get("steps"),
            **{name: train[name] for name in ("batch_size", "schedule", "clip_norm")},
            warmup_epochs=train["warmup_steps"] / epoch,
            **decay,
            latent_size=model["latent_size"] if network.latent else None,
            **config["hparams"],
            **{name: config[name] for name in SAME if name in config},
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"config.json: its settings are not as this version writes them ({error})") from error
    return source, settings


def steps_per_epoch(config: Config) -> int:
    """Steps per pass through the training images. Raises InputError if damaged."""
    images, batch_size = config["images"].get("train"), config["train"].get("batch_size")
    if type(images) is not int or type(batch_size) is not int or batch_size < 1:
        raise InputError("config.json: images.train or train.batch_size is damaged; restore it, or train again")
    return images // batch_size


def total_steps(config: Config) -> int:
    """Steps that a run is trained for."""
    steps = config.get("steps")
    return config["epochs"] * steps_per_epoch(config) if steps is None else steps


def model_to_config(model: Model) -> dict[str, Any]:
    """A model as plain JSON values."""
    known = dataclasses.fields(model)  # pyright: ignore[reportArgumentType]
    fields = {field.name: getattr(model, field.name) for field in known if field.name not in ("parent", "name")}
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    return {"name": type(model).__name__, **fields, **lists}


def model_from_config(config: Mapping[str, Any]) -> Model:
    """The model that `model_to_config` described.

    Raises:
      InputError: this version does not know the model, or one of its settings.
    """
    name = config.get("name") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or name not in MODELS:
        raise InputError(f"config.json: model {name!r} is unknown; this version knows {', '.join(MODELS)}")
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key != "name"
    }
    try:
        if "dtype" in fields:
            fields["dtype"] = jnp.dtype(fields["dtype"]).type
        return MODELS[name](**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.json: this version cannot make that {name} ({error}); train it again") from error


def objective_of(config: Config) -> NamedObjective:
    """The objective that a run is trained with.

    Raises:
      InputError: this version does not know it.
    """
    name = config.get("objective", "vae")  # Runs of earlier versions do not name it.
    if name not in OBJECTIVES:
        raise InputError(f"config.json: objective {name!r} is unknown; this version knows {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def likelihood_of(config: Config) -> Likelihood:
    """The likelihood that a run is trained with."""
    return objective_of(config).likelihood or gaussian_nll


def terms_of(config: Config) -> Objective:
    """The function of the objective, in the arithmetic of the run."""
    arithmetic = ARITHMETICS[config["arithmetic"]]
    return arithmetic.objective if arithmetic.at_draw else objective_of(config).function()


def read_config(run_dir: str | os.PathLike[str]) -> Config:
    """Read config.json of a run.

    Raises:
      InputError: the folder is missing or is not a run, or the file is damaged or of another version.
    """
    run = Path(run_dir)
    path = run / "config.json"
    if not path.is_file():
        if run.exists():
            raise InputError(f"{run}: is not a run (no config.json in it); name a folder that `jaxvae train` has made")
        raise InputError(f"{run}: no such folder; make one with {command('train', run)}")
    way_out = "restore it, or train into another folder"
    config = with_new_names(files.read_json(path, FACTS, way_out=way_out))
    if (config["epochs"] is None) == (config.get("steps") is None):
        raise InputError(f"{path}: needs either epochs or steps; {way_out}")
    return config


def _check_halvings(features: tuple[int, ...], shape: tuple[int, ...], resizing: str | None) -> None:
    """Raise ArgumentError if the sides of an image cannot be halved once per layer."""
    (height, width, _), factor = shape, 2 ** len(features)
    if height % factor == 0 and width % factor == 0:
        return
    # The lowest set bit of a number is the largest power of two that divides it.
    most = (math.gcd(height, width) & -math.gcd(height, width)).bit_length() - 1
    nearest = dict.fromkeys(max(1, round(side / factor)) * factor for side in (height, width))
    ways_out = [f"{resizing} `size` {' '.join(map(str, nearest))}"] if resizing else []
    ways_out += [f"give at most {most}"] if most else []
    problem = f"{len(features)} halvings need sides that {factor} divides, and the images are {height} high and "
    raise ArgumentError("features", features, f"{problem}{width} wide; {', or '.join(ways_out)}")
