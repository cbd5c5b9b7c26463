"""The flags that say which images and how to train: those that `sweep` shares, and all of them for `train`."""

from dataclasses import dataclass
from typing import Annotated

from jaxvae.cli import flags
from jaxvae.data import kinds
from jaxvae.runs import settings


@dataclass(frozen=True)
class Source(kinds.Source):
    """Which images, and how they are prepared and split."""

    hold_out: Annotated[int | None, flags.optional("INT", "none")] = None
    size: Annotated[tuple[int, ...] | None, flags.optional("INT [INT]", "phantom 64, folders as they are")] = None
    channels: Annotated[tuple[int, ...] | None, flags.optional("INT ...", "all")] = None


@dataclass(frozen=True)
class Recipe(settings.Recipe):
    """The network, and how it is trained."""

    features: Annotated[tuple[int, ...], flags.several("INT")] = (16, 32, 64, 256)
    epochs: Annotated[int | None, flags.optional("INT", "25")] = None
    steps: Annotated[int | None, flags.optional("INT", "by --epochs")] = None
    batch_size: Annotated[int | None, flags.optional("INT", flags.papers("batch_size"))] = None
    clip_norm: Annotated[float | None, flags.optional("FLOAT", "off")] = None


@dataclass(frozen=True)
class Settings(Recipe, settings.Settings):
    """The network, and how it is trained."""

    latent_size: Annotated[int | None, flags.optional("INT", flags.papers("latent_size"))] = None
    learning_rate: Annotated[float | None, flags.optional("FLOAT", flags.papers("learning_rate"))] = None
    patience: Annotated[int | None, flags.optional("INT", "off")] = None
