"""The flags that say how one trains, shared by the commands that do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from jaxvae.cli import flags
from jaxvae.cli.source import Source, is_fashion_mnist
from jaxvae.cli.words import spaced
from jaxvae.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Which network, and how it is trained."""

    model: Literal["auto", "dense", "conv"] = "auto"
    """dense is the paper's FashionMNIST network, conv its brain network; auto takes dense for fashion_mnist"""
    hidden_size: int = 400
    """dense only: hidden units"""
    features: Annotated[tuple[int, ...], flags.several("INT")] = (16, 32, 64, 256)
    """conv only: channels after each halving of the image"""
    epochs: int = 25
    """times to go through the images; `train` goes on with a finished run where it is raised"""
    batch_size: Annotated[int | None, flags.optional("INT", "as in the paper, dense 128, conv 64")] = None
    """images a step"""
    schedule: Literal["constant", "cosine", "exponential", "step"] = "constant"
    """of the learning rate; cosine falls to 0 at the last epoch"""
    warmup_epochs: float = 0.0
    """the learning rate first rises to what it is over so many epochs"""
    decay_epochs: float = 10.0
    """exponential and step: epochs to multiply the learning rate by --decay-rate once"""
    decay_rate: float = 0.1
    """see --decay-epochs"""
    clip_norm: Annotated[float | None, flags.optional("FLOAT", "off")] = None
    """shorten gradients longer than this"""
    augment: Literal["none", "paper"] = "none"
    """paper: mirror, turn, scale, bend and brighten each image anew and add noise, as the paper does with brains"""
    arithmetic: Literal["corrected", "released"] = "corrected"
    """released: the published FashionMNIST script's own objective (dense only)"""


def is_dense(recipe: Recipe, source: Source) -> bool:
    """Whether `--model` and `--data` ask for the dense network."""
    return recipe.model == "dense" or (recipe.model == "auto" and is_fashion_mnist(source))


def check_recipe(recipe: Recipe, dense: bool) -> None:
    for name in ("hidden_size", "epochs", "batch_size", "decay_epochs", "decay_rate", "clip_norm"):
        flags.refuse_unless_positive(name, getattr(recipe, name))
    decays = recipe.schedule in ("exponential", "step")
    flags.refuse_unless(not dense, recipe, ("features",), "--model conv")
    flags.refuse_unless(dense, recipe, ("hidden_size",), "--model dense")
    flags.refuse_unless(decays, recipe, ("decay_epochs", "decay_rate"), "--schedule exponential or step")
    if min(recipe.features, default=0) < 1:
        raise InputError(f"--features {spaced(recipe.features) or 'without a number'}: give numbers above 0")
    flags.refuse_below_zero("warmup_epochs", recipe.warmup_epochs)
    too_long = recipe.schedule == "cosine" and recipe.warmup_epochs >= recipe.epochs
    if too_long or not math.isfinite(recipe.warmup_epochs):
        raise InputError(f"--warmup-epochs {recipe.warmup_epochs}: must be below --epochs {recipe.epochs}")
    if recipe.arithmetic == "released" and not dense:
        raise InputError("--arithmetic released: the released objective is that of the dense model; add --model dense")
