"""The flags that say which images, shared by the commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from jaxvae.cli import flags
from jaxvae.data import kinds
from jaxvae.data.kinds import from_config as from_config
from jaxvae.data.kinds import preparation as preparation
from jaxvae.data.kinds import to_config as to_config

if TYPE_CHECKING:
    from jaxvae.data.dataset import Dataset, Splits
    from jaxvae.runs.run import Run


@dataclass(frozen=True)
class Source(kinds.Source):
    """Which images, and how they are prepared and split."""

    hold_out: Annotated[int | None, flags.optional("INT", "none")] = None
    size: Annotated[tuple[int, ...] | None, flags.optional("INT [INT]", "phantom 64, folders as they are")] = None
    channels: Annotated[tuple[int, ...] | None, flags.optional("INT ...", "all")] = None


def open_own(run_directory: Path, config: dict[str, Any]) -> Splits:
    from jaxvae.runs import run_images
    from jaxvae.runs.run import Run

    none: Any = None
    return run_images.open_own(Run(none, none, 0, config, Path(run_directory)))


def at_hand(config: dict[str, Any], other: Path | None) -> tuple[dict[str, Any], Path | None]:
    from jaxvae.runs import run_images
    from jaxvae.runs.run import Run

    none: Any = None
    run, other = run_images.at_hand(Run(none, none, 0, config, Path()), other)
    return run.config, other


def open_other(run_directory: Path, run: Run, folder: Path) -> Dataset:
    from jaxvae.runs import run_images

    dataset, notices = run_images.open_other(run._replace(run_dir=run_directory), folder)
    for line in notices:
        print(f"{folder}: {line}")
    return dataset
