"""The flags that say which images, shared by `train` and `sweep`."""

from dataclasses import dataclass
from typing import Annotated

from jaxvae.cli import flags
from jaxvae.data import kinds


@dataclass(frozen=True)
class Source(kinds.Source):
    """Which images, and how they are prepared and split."""

    hold_out: Annotated[int | None, flags.optional("INT", "none")] = None
    size: Annotated[tuple[int, ...] | None, flags.optional("INT [INT]", "phantom 64, folders as they are")] = None
    channels: Annotated[tuple[int, ...] | None, flags.optional("INT ...", "all")] = None
