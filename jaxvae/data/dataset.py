"""The record every data module returns: images, what is known about them, and how they belong together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxvae.errors import ArgumentError


@dataclass(frozen=True)
class Dataset:
    """Images on the host with their labels.

    Args:
      images: [N, H, W, C], uint8 (read as 0..1, divided by 255 on the device) or float32.
      labels: [N] bool, True where the image holds an anomaly.
      masks: [N, H, W, 1] bool, True on anomalous pixels; None where nobody drew any.
      names: N names, unique, as a user would recognise them (a path inside the folder, `test/00017`).
      groups: N names of the unit that is independent of the others (the patient, the place, the image itself): what a
        split keeps together and a bootstrap resamples.
      kinds: N names of what the image shows (`good`, `pitting`, `Bag`), for tables and figures.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    names: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Splits:
    """Healthy images to train on, healthy ones to validate on, and those to test on.

    Args:
      notices: lines for the user about how files were read.
      left_out: `path` and `reason` of each file that is not used.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    notices: tuple[str, ...] = ()
    left_out: tuple[dict[str, str], ...] = ()


def fingerprint(splits: Splits) -> str:
    """A hash of which images are learnt from and validated on; of those that are judged there may be more later."""
    learnt = [list(zip(part.names, part.groups, strict=True)) for part in (splits.train, splits.validation)]
    return hashlib.sha256(json.dumps(learnt).encode()).hexdigest()


def take(dataset: Dataset, index: np.ndarray) -> Dataset:
    """The images at `index` ([M] int, or [N] bool), everything known about them with them."""
    index = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index, dtype=np.int64)
    if np.array_equal(index, np.arange(len(dataset))):
        return dataset  # Not a copy: the images may be a file that is memory-mapped.
    return Dataset(
        images=dataset.images[index],
        labels=dataset.labels[index],
        masks=None if dataset.masks is None else dataset.masks[index],
        names=tuple(dataset.names[i] for i in index),
        groups=tuple(dataset.groups[i] for i in index),
        kinds=tuple(dataset.kinds[i] for i in index),
    )


def check_fraction(name: str, fraction: float) -> None:
    """Refuses what is no fraction to set aside, by the name of its argument."""
    if not 0 <= fraction < 1:
        raise ArgumentError(name, fraction, "pass a fraction from 0 up to, but not including, 1")


def set_aside(
    directory: str | Path, dataset: Dataset, name: str, fraction: float, seed: int
) -> tuple[Dataset, Dataset]:
    """`split_groups`, where there are groups enough for both sides; messages name the folder and the argument."""
    if fraction and len(set(dataset.groups)) < 2:
        raise ArgumentError(name, fraction, f"{directory} has too few images or cases to set so many aside; pass 0")
    return split_groups(dataset, fraction, seed)


def split_groups(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """(the rest, about `fraction` of the groups), drawn at random, no group on both sides.

    With a fraction of 0 the second part is empty; with any other it holds at least one group, and so does the first.
    """
    names = sorted(set(dataset.groups))
    count = 0 if fraction == 0 else min(max(1, round(fraction * len(names))), len(names) - 1)
    drawn = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
    held_out = np.array([group in drawn for group in dataset.groups], dtype=bool)
    return take(dataset, ~held_out), take(dataset, held_out)
