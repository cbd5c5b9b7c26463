"""Reading folders of image files as data sets.

Layouts are in `layouts`, file formats in `image_files`, and the rule for positive mask values in `masks`.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from jaxvae.data.budget import Budget
from jaxvae.data.dataset import Dataset, Splits, check_fraction, set_aside, take
from jaxvae.data.images import folders
from jaxvae.data.images.image_files import orientation, read, read_mask, size
from jaxvae.data.images.layouts import Entry
from jaxvae.data.images.preparation import AS_IS, Preparation, prepare
from jaxvae.data.normalization import as_float
from jaxvae.data.resampling import resize
from jaxvae.errors import InputError
from jaxvae.progress import Bar

MEMORY = 1 << 30  # bytes for all files that are read at the same time
SHOWN = 3  # the number of different notices on masks


def load(
    directory: str | Path,
    *,
    preparation: Preparation = AS_IS,
    validation: float = 0.1,
    test: float = 0.3,
    seed: int = 0,
) -> Splits:
    """Read the images of a folder in any of the layouts of `layouts`.

    Args:
      preparation: the preparation of every image; masks are resized to the same size.
      validation: the fraction of the training images, or of the cases, to validate on. It is not used if the folder
        has validation images.
      test: the fraction of the cases to test on with all their slices; only used in the layout `cases`.
      seed: of both random draws.

    Returns:
      Splits. Training and validation images are healthy and have no masks. The label of a test image comes from its
      folder, or from its mask before resizing (`cases`, `halves`), so that a lesion lost in resizing still counts. A
      flat folder has no test images. Images are uint8 if every file is and nothing is resized or normalised, else
      float32.

    Raises:
      InputError: unknown layout; images of several sizes without `size`; a mask without image, of another size, or
        missing; a file that `image_files.read` refuses; a mask with an anomaly in a folder of healthy images.
    """
    directory = Path(directory)
    check_fraction("validation", validation)
    check_fraction("test", test)
    found = folders.find(directory)
    folders.refuse_without_training(directory, found)
    parts = (found.train, found.validation, found.test)
    everything, notices = _read([entry for part in parts for entry in part], preparation)
    ends = np.cumsum([len(part) for part in parts])
    trained, validated, tested = (take(everything, index) for index in np.split(np.arange(ends[-1]), ends[:-1]))
    if found.layout == "cases":
        trained, tested = set_aside(directory, trained, "test", test, seed)
    if not found.validation:
        trained, validated = set_aside(directory, trained, "validation", validation, seed)
    anomalous = int(trained.labels.sum() + validated.labels.sum())
    dropped = f"{anomalous} images with anomalies are not trained on"
    counted = folders.summary(found.left_out)
    return Splits(
        train=_healthy(directory, trained),
        validation=_healthy(directory, validated),
        test=tested,
        notices=tuple(line for line in (counted, dropped if anomalous else "", *notices) if line),
        left_out=tuple(folders.records(found.left_out)),
    )


def load_test(directory: str | Path, *, preparation: Preparation = AS_IS) -> tuple[Dataset, tuple[str, ...]]:
    """Read all labelled images of a folder: test images, or slices of all cases.

    Returns:
      The images, and notices for the user about files that are not used and masks that were thresholded.

    Raises:
      InputError: as `load`, or the folder has no labels.
    """
    directory = Path(directory)
    found = folders.find(directory)
    labelled = found.train if found.layout == "cases" else found.test
    if not labelled:
        raise InputError(f"{directory}: has no labels; arrange it as test/KIND, or as cases with masks")
    dataset, notices = _read(labelled, preparation)
    return dataset, tuple(line for line in (folders.summary(found.left_out), *notices) if line)


def read_folder(directory: str | Path, *, preparation: Preparation = AS_IS) -> Dataset:
    """Read all images below a folder, or one image file, to score them.

    Labels are False, masks None. Files that are masks by their name or their folder's name are not read.

    Raises:
      InputError: there is no image, sizes differ without `size`, or `image_files.read` refuses a file.
    """
    return _read(folders.unlabelled(directory)[0], preparation)[0]


def read_prepared(path: Path, preparation: Preparation) -> np.ndarray:
    """Read and prepare one image. Raises the errors of `read` and `prepare`."""
    return _prepared(read(path), path, preparation)


def _healthy(directory: Path, dataset: Dataset) -> Dataset:
    if len(dataset) and dataset.labels.all():
        raise InputError(f"{directory}: no slice of the cases to train on is healthy; add cases or change `seed`")
    return replace(take(dataset, ~dataset.labels), masks=None)


def _read(entries: Sequence[Entry], preparation: Preparation) -> tuple[Dataset, list[str]]:
    """Read the images in the order of their entries. All have masks if any has one. Returns notices on masks too."""
    images = masks = None
    labels = np.zeros(len(entries), bool)
    noticed: Counter[str] = Counter()
    pool, budget = ThreadPoolExecutor(), Budget(MEMORY)
    try:
        results = pool.map(partial(_read_entry, preparation=preparation, budget=budget), entries)
        shown = Bar(results, "reading images", len(entries), leave=False, unit="image")
        for i, (image, mask, labels[i], notices) in enumerate(shown):
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
            noticed.update(notices)
    finally:
        # After an error, files that are not yet read are skipped.
        pool.shutdown(cancel_futures=True)
    assert images is not None, "every caller has refused an empty folder"
    names, groups = tuple(entry.name for entry in entries), tuple(entry.group for entry in entries)
    kinds = tuple(entry.kind or ("anomalous" if sick else "good") for entry, sick in zip(entries, labels, strict=True))
    dataset = Dataset(images, labels, masks, names, groups, kinds)
    lines = [f"{count} mask{'s' if count > 1 else ''}: {notice}" for notice, count in noticed.most_common(SHOWN)]
    if rest := noticed.total() - sum(count for _, count in noticed.most_common(SHOWN)):
        lines.append(f"{rest} more masks have values other than labels and were thresholded at half of their range")
    return dataset, lines


def _read_entry(
    entry: Entry, *, preparation: Preparation, budget: Budget
) -> tuple[np.ndarray, np.ndarray | None, bool, list[str]]:
    """(prepared image, union of its masks, label, notices about its masks)."""
    with budget.reserve(bytes_to_prepare(entry.path, preparation)):
        raw = read(entry.path)
        shape, image = raw.shape, _prepared(raw, entry.path, preparation)
        del raw
    mask, notices = None, []
    for path in entry.masks:
        with budget.reserve(size(path).bytes_to_read):
            drawn, notice = read_mask(path)
        if drawn.shape[:2] != shape[:2]:
            raise InputError(_other_size(path, drawn.shape, entry.path, shape))
        mask = drawn if mask is None else mask | drawn
        notices += [notice] if notice else []
    label = bool(mask is not None and mask.any()) if entry.kind is None else entry.kind not in ("good", "unknown")
    if mask is not None and mask.any() and not label:
        raise InputError(f"{entry.masks[0]}: shows an anomaly, but {entry.path} is in a folder of healthy images")
    if mask is not None and preparation.size is not None:
        mask = resize(mask, preparation.size, kind="mask")
    return image, mask, label, notices


def bytes_to_prepare(path: Path, preparation: Preparation) -> int:
    """The approximate peak memory of `read_prepared`, by the file's header."""
    # An image that is not resized can become floating point at full size.
    return size(path).bytes_to_read * (1 if preparation.size else 4)


def _other_size(mask: Path, mask_shape: tuple[int, ...], image: Path, shape: tuple[int, ...]) -> str:
    words = f"{mask}: {_size(mask_shape)}, but its image {image} has {_size(shape)}"
    turns = {path: orientation(path) for path in (image, mask)}
    turned = [f"{path.name} was rotated by its EXIF orientation {n}" for path, n in turns.items() if n != 1]
    return f"{words}; {' and '.join(turned)}, so rotate the other one too" if turned else f"{words}; resize one of them"


def _prepared(raw: np.ndarray, path: Path, preparation: Preparation) -> np.ndarray:
    try:
        return prepare(raw, preparation)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _differ(first: Path, first_shape: tuple[int, ...], other: Path, shape: tuple[int, ...]) -> str:
    if shape[:2] != first_shape[:2]:
        return f"{other}: {_size(shape)}, but {first} has {_size(first_shape)}; pass `size` to resize all images"
    way_out = "pass as `channels` the ones that all images have, such as 0"
    return f"{other}: {shape[2]} channels, but {first} has {first_shape[2]}; {way_out}"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
