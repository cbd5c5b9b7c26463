"""The flags of the network and the optimizer, shared by `train` and `sweep`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jaxvae.cli import flags
from jaxvae.runs import settings
from jaxvae.runs.settings import is_dense as is_dense


@dataclass(frozen=True)
class Recipe(settings.Recipe):
    """The network, and how it is trained."""

    features: Annotated[tuple[int, ...], flags.several("INT")] = (16, 32, 64, 256)
    epochs: Annotated[int | None, flags.optional("INT", "25")] = None
    steps: Annotated[int | None, flags.optional("INT", "by --epochs")] = None
    batch_size: Annotated[int | None, flags.optional("INT", flags.papers("batch_size"))] = None
    clip_norm: Annotated[float | None, flags.optional("FLOAT", "off")] = None
