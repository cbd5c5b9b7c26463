"""Settings of a run: network, optimizer and hyperparameters.

The defaults are the paper's values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxvae.data.kinds import Source, kind_of
from jaxvae.errors import (
    ArgumentError,
    InputError,
    did_you_mean,
    refuse_below_zero,
    refuse_unless,
    refuse_unless_positive,
)
from jaxvae.models import NETWORKS, Network
from jaxvae.objectives import OBJECTIVES, NamedObjective

if TYPE_CHECKING:
    ModelName = ObjectiveName = str
else:
    ModelName, ObjectiveName = Literal["auto", *NETWORKS], Literal["auto", *OBJECTIVES]

EPOCHS = 25


@dataclass(frozen=True)
class Recipe:
    """The network and the optimizer: the settings that the runs of a sweep share."""

    model: ModelName = "auto"
    """dense is the paper's FashionMNIST network, conv its brain network; auto is dense for fashion_mnist"""
    objective: ObjectiveName = "auto"
    """what training minimizes; without a KL (autoencoder, ce, denoising) a run has fewer scores; auto is vae, denoising
    for unet and two_stage for two_stage"""
    hidden_size: int | None = None
    """dense and two_stage only: hidden units"""
    features: tuple[int, ...] | None = None
    """conv, spatial and unet only: channels after each halving of the image"""
    dropout: float = 0.0
    """dense, conv and spatial only: the share of hidden units that training drops"""
    decoder_scale: Literal["fixed", "shared", "pixel"] = "fixed"
    """dense, conv and spatial only: the decoder's standard deviation, exp(log_scale) or learned: one number or one per
    pixel"""
    epochs: int | None = None
    """passes through the training images; a higher number continues a finished run"""
    steps: int | None = None
    """training steps (one batch each), instead of epochs; a higher number continues a finished run"""
    batch_size: int | None = None
    """images per step"""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """learning-rate schedule; cosine falls to 0 at the last step"""
    warmup_epochs: float = 0.0
    """epochs over which the learning rate first rises from 0"""
    decay_epochs: float = 10.0
    """exponential and step only: epochs after which the learning rate is multiplied by the decay rate"""
    decay_rate: float = 0.1
    """exponential and step only: the factor"""
    clip_norm: float | None = None
    """shorten gradients longer than this"""
    augment: Literal["none", "paper"] = "none"
    """paper: mirror, rotate, scale, bend and brighten each image at random and add noise, as the paper does with
    brains"""
    arithmetic: Literal["corrected", "released"] = "corrected"
    """released: the objective of the published FashionMNIST script (dense only)"""


@dataclass(frozen=True)
class Settings(Recipe):
    """All settings of one run but its images."""

    latent_size: int | None = None
    """dimensions of the latent"""
    learning_rate: float | None = None
    """learning rate of Adam"""
    beta: float = 1.0
    """weight of the KL term"""
    log_scale: float = 0.0
    """natural logarithm of the decoder's standard deviation"""
    patience: int | None = None
    """stop after this many epochs without a better validation ELBO, and keep the best"""
    seed: int = 0
    """random seed of the initial weights, the order of the images and the noise"""


def network_of(recipe: Recipe, source: Source) -> Network:
    """The model that a recipe and the images ask for."""
    return NETWORKS[_network_name(recipe, source)]


def objective_of(recipe: Recipe, source: Source) -> NamedObjective:
    """The objective that a recipe asks for, if `auto` that of its model."""
    return OBJECTIVES[network_of(recipe, source).objective if recipe.objective == "auto" else recipe.objective]


def _network_name(recipe: Recipe, source: Source) -> str:
    """The name of the model; that of the objective's only model, or the source's, if it is `auto`."""
    if recipe.model != "auto":
        return recipe.model
    networks = () if recipe.objective == "auto" else OBJECTIVES[recipe.objective].networks
    return networks[0] if len(networks) == 1 else kind_of(source).model


def check(settings: Settings, source: Source) -> None:
    """Check all that can be checked before the images are read.

    Raises:
      InputError: a value is out of range, or has no effect together with the others.
    """
    if settings.objective not in ("auto", *OBJECTIVES):
        alike = did_you_mean(settings.objective, OBJECTIVES)
        raise ArgumentError("objective", settings.objective, f"choose from {', '.join(OBJECTIVES)}{alike}")
    network, decays = network_of(settings, source), settings.schedule in ("exponential", "step")
    _check_objective(objective_of(settings, source), network, settings)
    lengths = ("epochs", "steps", "batch_size", "decay_epochs", "patience")
    for name in (*lengths, "decay_rate", "clip_norm", "hidden_size", "latent_size", "learning_rate"):
        refuse_unless_positive(name, getattr(settings, name))
    if settings.epochs is not None and settings.steps is not None:
        raise ArgumentError("steps", settings.steps, f"`epochs` {settings.epochs} is given too; give one of the two")
    for name in {name: None for other in NETWORKS.values() for name in other.settings}:
        having = ", ".join(other.name for other in NETWORKS.values() if name in other.settings)
        refuse_unless(name in network.settings, settings, (name,), f"`model` {having}")
    refuse_unless(decays, settings, ("decay_epochs", "decay_rate"), "`schedule` exponential or step")
    if settings.features is not None and min(settings.features, default=0) < 1:
        raise ArgumentError("features", settings.features, "give numbers above 0")
    refuse_below_zero("warmup_epochs", settings.warmup_epochs)
    epochs = math.inf if settings.steps else settings.epochs or EPOCHS
    too_long = settings.schedule == "cosine" and settings.warmup_epochs >= epochs
    if too_long or not math.isfinite(settings.warmup_epochs):
        raise ArgumentError("warmup_epochs", settings.warmup_epochs, f"must be below `epochs` {epochs}")
    if settings.arithmetic not in network.arithmetics:
        fits = [other.name for other in NETWORKS.values() if settings.arithmetic in other.arithmetics]
        raise ArgumentError("arithmetic", settings.arithmetic, f"only goes with `model` {', '.join(fits)}")
    if not 0 <= settings.dropout < 1:
        raise ArgumentError("dropout", settings.dropout, "must be at least 0 and below 1")
    for name in ("beta", "log_scale"):
        if not math.isfinite(getattr(settings, name)):
            raise ArgumentError(name, getattr(settings, name), "must be a finite number")
    refuse_below_zero("beta", settings.beta)
    if not 0 <= settings.seed < 2**32:
        raise ArgumentError("seed", settings.seed, "must be in 0..4294967295")
    if settings.patience is not None and source.validation == 0:
        raise InputError("`patience` needs a validation set; set `validation` to a fraction above 0")


def _check_objective(objective: NamedObjective, network: Network, settings: Settings) -> None:
    """Raise ArgumentError if an objective does not go with the model or with the other settings."""
    fits = [
        one.name
        for one in OBJECTIVES.values()
        if (network.latent or not one.kl) and (not one.networks or network.name in one.networks)
    ]
    if objective.networks and network.name not in objective.networks:
        raise ArgumentError("objective", objective.name, f"only goes with `model` {', '.join(objective.networks)}")
    if objective.name not in fits:
        problem = f"has a KL, and `model` {network.name} has no latent; choose from {', '.join(fits)}"
        raise ArgumentError("objective", objective.name, problem)
    if settings.arithmetic != "corrected" and objective.name != "vae":
        raise ArgumentError("arithmetic", settings.arithmetic, "only goes with `objective` vae")
    plain = settings.arithmetic == "corrected"
    refuse_unless(plain, settings, ("dropout", "decoder_scale"), "`arithmetic` corrected")
    refuse_unless(objective.kl, settings, ("beta",), "an `objective` with a KL")
    refuse_unless(network.latent, settings, ("latent_size",), "a `model` with a latent")
    fixed = settings.decoder_scale == "fixed" and not network.learns_scale
    where = "`decoder_scale` fixed" + (f", and `model` {network.name} learns it" if network.learns_scale else "")
    refuse_unless(fixed, settings, ("log_scale",), where)
    if network.name in objective.networks and objective.kl and settings.beta == 0:
        raise ArgumentError("beta", settings.beta, f"must be above 0 with `objective` {objective.name}")
    if network.objective != "vae" and objective.kl and objective.name != network.objective:
        raise ArgumentError("objective", objective.name, f"`model` {network.name} goes with {network.objective}")
