"""Labelled images to test a run on: its own test images, those of another folder, or a data set in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jaxvae.data import kinds
from jaxvae.data.dataset import Dataset, Splits
from jaxvae.data.volumes import cache
from jaxvae.data.volumes.cache import Cache
from jaxvae.errors import InputError, command
from jaxvae.runs import run_images
from jaxvae.runs.run import Run


class LabelledImages(NamedTuple):
    """Images to test a run on."""

    dataset: Dataset
    place: str  # their folder, for messages
    volumes: Cache | None = None  # the prepared volumes that the images are slices of


def load(
    run: Run, other: Path | None, own: Callable[[], Splits], say: Callable[[str], None] = lambda line: None
) -> LabelledImages:
    """Load the test images of a run, or all labelled images of another folder.

    Args:
      own: loads the run's own images.
      say: called with each line for the user.

    Raises:
      InputError: there is none, they cannot be read, or the run was trained on one of them.
    """
    if other is None:
        dataset, place = own().test, run.config["data"]["data"]
    else:
        (dataset, notices), place = run_images.open_other(run, other), str(other)
        for line in notices:
            say(f"{other}: {line}")
    if len(dataset) == 0:
        way_out = f"name others that have labels, {command('evaluate', run.run_dir, 'OTHER')}"
        raise InputError(f"{other or run.run_dir}: its data have no test images; {way_out}")
    return LabelledImages(dataset, place, cache.open_cache(place) if run.kind is kinds.VOLUMES else None)
