"""Dataset and Splits, the records of all data modules.

They hold images, labels, masks and names. Splitting by group and fingerprints are here too.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np

from jaxvae.errors import ArgumentError


@dataclass(frozen=True)
class Dataset:
    """Images on the host with their labels.

    Args:
      images: [N, H, W, C], uint8 (divided by 255 on the device) or float32.
      labels: [N] bool, True for images with an anomaly.
      masks: [N, H, W, 1] bool, True for anomalous pixels; None without masks.
      names: N unique names that a user recognises (a path inside the folder, `test/00017`).
      groups: N names of independent units (the patient, the place, the image itself). A split keeps a group together
        and the bootstrap resamples groups.
      kinds: N names for tables and figures of what the images show (`good`, `pitting`, `Bag`).
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
    """Healthy images to train on, healthy ones to validate on, and the test images.

    Args:
      notices: lines for the user about the files.
      left_out: `path` and `reason` of each unused file.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    notices: tuple[str, ...] = ()
    left_out: tuple[dict[str, str], ...] = ()


Fingerprint = str | list[float]  # identifies images: the hash of prepared volumes, else `contents`
ROUNDING = 1e-7  # fraction of the norm; 20 times the effect of float32 rounding on a weighted sum


def fingerprint(splits: Splits) -> str:
    """Hash of the names and groups of the training and validation images.

    The test set is left out because it may grow. Names say nothing about pixels: see `contents`.
    """
    names = [list(zip(part.names, part.groups, strict=True)) for part in (splits.train, splits.validation)]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def sketches(images: np.ndarray) -> np.ndarray:
    """Sketches of images [N, H, W, C]: [N, 3] float64, to recognise them.

    A sketch is two weighted sums of the pixels and their norm. The weights are fixed pseudorandom numbers, so different
    images have different sums. A hash would change with the last bit of a float, and resized or normalised images
    differ by that much between processors.
    """
    count, height, width, channels = images.shape
    across, down = _weights(2 * width * channels).reshape(-1, 2), _weights(height)
    found = np.empty((count, 3))
    step = max(1, (1 << 22) // max(1, height * width * channels))
    for start in range(0, count, step):
        part = images[start : start + step].astype(np.float64)
        rows = (part.reshape(-1, width * channels) @ across).reshape(len(part), height, 2)
        found[start : start + step, :2] = np.einsum("nhk,h->nk", rows, down)
        found[start : start + step, 2] = np.linalg.norm(part.reshape(len(part), -1), axis=1)
    return found


def contents(*parts: np.ndarray) -> list[float]:
    """A sketch [3] of the pixels and the order of all images of the parts."""
    found = np.concatenate([sketches(part) for part in parts])
    return [*(_weights(len(found)) @ found[:, :2]).tolist(), float(np.linalg.norm(found[:, 2]))]


def same_contents(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two sketches are of equal pixels, up to rounding."""
    return bool(np.abs(np.subtract(one, other)).max() <= ROUNDING * max(one[2], other[2]))


def same_fingerprint(one: Fingerprint | None, other: Fingerprint | None) -> bool | None:
    """Whether two fingerprints are of the same images; None if one is missing."""
    if one is None or other is None:
        return None
    return one == other or (is_sketch(one) and is_sketch(other) and same_contents(one, other))


def is_sketch(value: object) -> TypeGuard[list[float]]:
    """Whether a JSON value has the form that `contents` returns."""
    return isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)


def is_among(found: np.ndarray, sketched: np.ndarray) -> np.ndarray:
    """[N] bool: whether each sketch, [N, 3], equals one of the others, [M, 3]."""
    order = sketched[np.argsort(sketched[:, 0])]
    reach = 2 * ROUNDING * found[:, 2]
    lows, highs = (np.searchsorted(order[:, 0], found[:, 0] + side * reach) for side in (-1, 1))
    near = zip(found, lows.tolist(), highs.tolist(), strict=True)
    return np.array([any(same_contents(one, other) for other in order[low:high]) for one, low, high in near], bool)


def _weights(count: int) -> np.ndarray:
    """[count] float64 in -0.5..0.5. Raw numbers are the same in every version of NumPy."""
    return np.random.PCG64(0).random_raw(count) / 2.0**64 - 0.5


def take(dataset: Dataset, index: np.ndarray) -> Dataset:
    """The images at `index` ([M] int or [N] bool) with all that belongs to them."""
    index = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index, dtype=np.int64)
    if np.array_equal(index, np.arange(len(dataset))):
        return dataset  # A copy could read a whole memory-mapped file.
    masks = None if dataset.masks is None else dataset.masks[index]
    names, groups, kinds = (tuple(each[i] for i in index) for each in (dataset.names, dataset.groups, dataset.kinds))
    return Dataset(dataset.images[index], dataset.labels[index], masks, names, groups, kinds)


def check_fraction(name: str, fraction: float) -> None:
    """Raise InputError if the argument `name` is not a fraction in [0, 1)."""
    if not 0 <= fraction < 1:
        raise ArgumentError(name, fraction, "must be at least 0 and below 1")


def set_aside(
    directory: str | Path, dataset: Dataset, name: str, fraction: float, seed: int
) -> tuple[Dataset, Dataset]:
    """Split at random into (the rest, about `fraction` of the groups).

    No group is in both parts. With a fraction of 0 the second part is empty. Otherwise both parts hold at least one
    group.

    Raises:
      InputError: there are fewer than two groups in `directory` for the fraction, the argument `name`.
    """
    names = sorted(set(dataset.groups))
    if fraction and len(names) < 2:
        raise ArgumentError(name, fraction, f"{directory} has too few images or cases for it; pass 0")
    count = 0 if fraction == 0 else min(max(1, round(fraction * len(names))), len(names) - 1)
    drawn = set(np.random.default_rng(seed).permutation(names)[:count].tolist())
    held_out = np.array([group in drawn for group in dataset.groups], dtype=bool)
    return take(dataset, ~held_out), take(dataset, held_out)
