"""Flags that `train` and `sweep` share, and annotations of all flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.data import kinds
from jaxvae.errors import InputError
from jaxvae.models import NETWORKS
from jaxvae.runs import settings
from jaxvae.scores import known_maps

if TYPE_CHECKING:
    MapName = str
else:
    MapName = tyro.extras.literal_type_from_choices(known_maps())
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def flag(name: str) -> str:
    """The flag of an argument.

    >>> flag("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def optional(kind: str, default: str | None) -> Any:
    """Annotation of a flag whose default is None: `--size INT  resize ...`."""
    return tyro.conf.arg(metavar=kind, help_behavior_hint=default and f"(default: {default})")


def papers(name: str) -> str:
    """The default of a flag whose value depends on the model, from the paper of each."""
    values = {it.name: getattr(it, name) for it in NETWORKS.values()}
    return "as in the papers, " + ", ".join(f"{model} {value:g}" for model, value in values.items() if value)


def named_maps(what: str, default: str, names: Sequence[str] | None = None) -> Any:
    """Annotation of `--maps`, with the names in its help; None: all."""
    what = f"{what}. Names: {', '.join(known_maps() if names is None else names)}"
    return tyro.conf.arg(metavar="NAME ...", help=what, help_behavior_hint=f"(default: {default})")


def check_maps(maps: Sequence[str]) -> None:
    """Raise InputError if `--maps` names a map twice."""
    if len(set(maps)) < len(maps):
        raise InputError(f"--maps: {' '.join(maps)} holds a name twice; give each once")


def own(name: str) -> str:
    """The default of a flag whose value depends on the model."""
    found = {it.name: it.settings[name] for it in NETWORKS.values() if name in it.settings}
    words = {model: " ".join(map(str, value)) if isinstance(value, tuple) else value for model, value in found.items()}
    return ", ".join(f"{model} {value}" for model, value in words.items())


def several(kind: str, default: str | None = None) -> Any:
    """Annotation of a flag that takes several values: `--features INT ...`."""
    return optional(f"{kind} ...", default)


@dataclass(frozen=True)
class Source(kinds.Source):
    """Which images, and how they are prepared and split."""

    hold_out: Annotated[int | None, optional("INT", "none")] = None
    size: Annotated[tuple[int, ...] | None, optional("INT [INT]", "phantom 64, folders as they are")] = None
    channels: Annotated[tuple[int, ...] | None, optional("INT ...", "all")] = None


@dataclass(frozen=True)
class Recipe(settings.Recipe):
    """The network, and how it is trained."""

    hidden_size: Annotated[int | None, optional("INT", own("hidden_size"))] = None
    features: Annotated[tuple[int, ...] | None, several("INT", own("features"))] = None
    epochs: Annotated[int | None, optional("INT", "25")] = None
    steps: Annotated[int | None, optional("INT", "by --epochs")] = None
    batch_size: Annotated[int | None, optional("INT", papers("batch_size"))] = None
    clip_norm: Annotated[float | None, optional("FLOAT", "off")] = None


@dataclass(frozen=True)
class Settings(Recipe, settings.Settings):
    """The network, and how it is trained."""

    latent_size: Annotated[int | None, optional("INT", papers("latent_size"))] = None
    learning_rate: Annotated[float | None, optional("FLOAT", papers("learning_rate"))] = None
    patience: Annotated[int | None, optional("INT", "off")] = None
