"""Folders of image files as data: healthy images to learn from, and others to be judged.

Which layouts are understood stands in `image_folders`, which files in `image_files`. A mask is anomalous where it is
not 0 in any channel; a JPEG mask, which is never clean, where it is above 127.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from jaxvae.data import image_folders
from jaxvae.data.dataset import Dataset, Splits, check_fraction, set_aside, take
from jaxvae.data.image_files import read
from jaxvae.data.image_folders import Entry
from jaxvae.data.preparation import AS_IS, Preparation, as_float, prepare, resize
from jaxvae.errors import InputError
from jaxvae.progress import Bar


def load(
    directory: str | Path,
    *,
    preparation: Preparation = AS_IS,
    validation: float = 0.1,
    test: float = 0.3,
    seed: int = 0,
) -> Splits:
    """The images of a folder, in whichever of the three layouts it is.

    Args:
      directory: the folder.
      preparation: what is done to every image; masks are resized with it.
      validation: the fraction set aside of what there is to learn from: of its images (benchmark, flat) or of its
        cases.
      test: the fraction of cases that are judged, their healthy slices among the others; no use to the other layouts.
      seed: draws the two.
    Returns:
      Splits. Train and validation are healthy and have no masks. In the test, the label comes from the folder
      (benchmark) or from the mask as it was drawn (cases), so that a lesion lost in resizing still counts; the test of
      a flat folder is empty. Images are uint8 where every file is and nothing is resized or normalised, else float32.
    Raises:
      InputError: no such layout; images of several sizes and no `size`; a mask without image, of another size, or
        missing; a file that `image_files.read` refuses.
    """
    directory = Path(directory)
    check_fraction("validation", validation)
    check_fraction("test", test)
    layout = image_folders.layout_of(directory)
    if layout == "cases":
        everything = _read(image_folders.cases(directory), preparation)
        learnt, judged = set_aside(directory, everything, "test", test, seed)
    elif layout == "benchmark":
        good = image_folders.healthy(directory, directory / "train" / "good")
        learnt, judged = _read_both(good, image_folders.judged(directory), preparation)
    else:
        learnt, judged = _read_both(image_folders.healthy(directory, directory), [], preparation)
    train, validated = set_aside(directory, learnt, "validation", validation, seed)
    return Splits(train=_healthy(directory, train), validation=_healthy(directory, validated), test=judged)


def load_judged(directory: str | Path, *, preparation: Preparation = AS_IS) -> Dataset:
    """All that can be judged in a folder with labels: what lies in `test`, or the slices of all its cases.

    Raises:
      InputError: it has no labels, or as `load`.
    """
    directory = Path(directory)
    if (directory / "test").is_dir():
        return _read(image_folders.judged(directory), preparation)
    if image_folders.layout_of(directory) != "cases":
        raise InputError(f"{directory}: has no labels; arrange it as test/KIND, or as cases with their masks")
    return _read(image_folders.cases(directory), preparation)


def read_folder(directory: str | Path, *, preparation: Preparation = AS_IS) -> Dataset:
    """All images below a folder, or the one image that the path names, to be scored: labels are False, masks None.

    Files called `<name>_mask` are passed over.

    Raises:
      InputError: there is no image, sizes differ and there is no `size`, or `image_files.read` refuses a file.
    """
    return _read(image_folders.unlabelled(directory), preparation)


def read_prepared(path: Path, preparation: Preparation) -> np.ndarray:
    """One image, as `prepare` makes it.

    Raises:
      InputError: `image_files.read` refuses the file, or it cannot be prepared so.
    """
    return _prepared(read(path), path, preparation)


def _healthy(directory: Path, dataset: Dataset) -> Dataset:
    if len(dataset) and dataset.labels.all():
        raise InputError(f"{directory}: no slice of the cases to learn from is healthy; add cases, or change the seed")
    return replace(take(dataset, ~dataset.labels), masks=None)


def _read_both(first: list[Entry], second: list[Entry], preparation: Preparation) -> tuple[Dataset, Dataset]:
    """Read as one, so that all images have one shape and type."""
    both = _read(first + second, preparation)
    return take(both, np.arange(len(first))), take(both, np.arange(len(first), len(both)))


def _read(entries: Sequence[Entry], preparation: Preparation) -> Dataset:
    """The images, in the order of their entries; masks for all as soon as there is one for any."""
    images = masks = None
    labels = np.zeros(len(entries), bool)
    pool = ThreadPoolExecutor()
    try:
        results = pool.map(partial(_read_entry, preparation=preparation), entries)
        for i, (image, mask, labels[i]) in enumerate(
            Bar(results, "reading images", len(entries), leave=False, unit="image")
        ):
            if images is None:
                images = np.empty((len(entries), *image.shape), image.dtype)
            if image.shape != images.shape[1:]:
                raise InputError(_differ(entries[0].path, images.shape[1:], entries[i].path, image.shape))
            if image.dtype != images.dtype:
                images, image = as_float(images), as_float(image)
            images[i] = image
            if mask is not None:
                masks = np.zeros((len(entries), *image.shape[:2], 1), bool) if masks is None else masks
                masks[i] = mask
    finally:
        # After an error the files that wait their turn need not be read.
        pool.shutdown(cancel_futures=True)
    assert images is not None, "every caller has refused an empty folder"
    return Dataset(
        images=images,
        labels=labels,
        masks=masks,
        names=tuple(entry.name for entry in entries),
        groups=tuple(entry.group for entry in entries),
        kinds=tuple(
            entry.kind or ("anomalous" if label else "good") for entry, label in zip(entries, labels, strict=True)
        ),
    )


def _read_entry(entry: Entry, preparation: Preparation) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """(image, mask, whether it holds an anomaly), prepared."""
    raw = read(entry.path)
    mask = None
    label = entry.kind not in ("good", "unknown")
    if entry.mask is not None:
        drawn = read(entry.mask)
        if drawn.shape[:2] != raw.shape[:2]:
            raise InputError(f"{entry.mask}: {_size(drawn.shape)}, but its image {entry.path} has {_size(raw.shape)}")
        threshold = 127 if entry.mask.suffix.lower() in (".jpg", ".jpeg") else 0
        mask = np.any(drawn > threshold, axis=-1, keepdims=True)
        label = bool(mask.any()) if entry.kind is None else label
        mask = mask if preparation.size is None else resize(mask, preparation.size, kind="mask")
    return _prepared(raw, entry.path, preparation), mask, label


def _prepared(raw: np.ndarray, path: Path, preparation: Preparation) -> np.ndarray:
    try:
        return prepare(raw, preparation)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _differ(first: Path, first_shape: tuple[int, ...], other: Path, shape: tuple[int, ...]) -> str:
    if shape[:2] != first_shape[:2]:
        return f"{other}: {_size(shape)}, but {first} has {_size(first_shape)}; pass --size N to resize all to NxN"
    way_out = "pass --channels with those that all have, like --channels 0"
    return f"{other}: {shape[2]} channels, but {first} has {first_shape[2]}; {way_out}"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
