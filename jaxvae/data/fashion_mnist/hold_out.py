"""FashionMNIST with one class held out as the anomaly.

The experiment is that of Zimmerer et al., MICCAI 2019. Data: Xiao et al., "Fashion-MNIST", 2017 (arXiv 1708.07747).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxvae.data.dataset import Dataset, Splits, check_fraction, set_aside, take
from jaxvae.data.fashion_mnist import idx_files
from jaxvae.data.fashion_mnist.idx_files import FILES, RECORDS, SHA256
from jaxvae.errors import ArgumentError, InputError, command, reason

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load(
    directory: str | Path,
    *,
    hold_out: int,
    scaling: int = 1,
    validation: float = 0.0,
    seed: int = 0,
    verify: bool = True,
) -> Splits:
    """Load FashionMNIST with nine classes to train on and all ten to test on.

    Args:
      directory: the folder of the four official IDX files, with or without `.gz`, or of `download`.
      hold_out: the class that counts as the anomaly, 0..9 as in `CLASSES`.
      scaling: each image is stacked this many times vertically, the paper's input scaling.
      validation: the fraction of the training images to validate on, drawn by `seed`.
      verify: refuse files with another SHA-256 than the official ones.

    Returns:
      Splits with uint8 images [N, 28 * scaling, 28, 1]: train and validation share the 54,000 training images of the
      other nine classes, test is all 10,000 test images with labels = (class == hold_out). No masks.

    Raises:
      InputError: a file is missing, damaged or not the official one, or an argument is out of its range.
    """
    _check_arguments(hold_out, scaling, validation)
    parts = read(directory, verify=verify)
    train = _dataset("train", *parts["train"], hold_out)
    test = _dataset("test", *parts["test"], hold_out)
    healthy, healthy_validation = set_aside(directory, take(train, ~train.labels), "validation", validation, seed)
    scaled = [
        replace(part, images=np.tile(part.images, (1, scaling, 1, 1))) for part in (healthy, healthy_validation, test)
    ]
    return Splits(scaled[0], scaled[1], scaled[2])


def read(directory: str | Path, *, verify: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{split: (images [N, 28, 28] uint8, classes [N])} for train and test.

    Raises:
      InputError: a file is missing, damaged or not the official one.
    """
    directory = Path(directory)
    found = idx_files.find(directory)
    missing = [f"{name}.gz" for name in SHA256 if name not in found]
    if not missing:
        return {split: idx_files.read_pair(found, *names, verify) for split, names in FILES.items()}
    if (directory / RECORDS).is_dir():
        return _read_records(directory)
    problem = f"no {', '.join(missing)} there" if directory.is_dir() else "no such directory"
    raise InputError(
        f"{directory}: {problem}; copy {idx_files.names()} there, or download them with "
        f"{command('prepare', f'fashion_mnist:{directory}')}"
    )


def _check_arguments(hold_out: object, scaling: object, validation: float) -> None:
    if isinstance(hold_out, bool) or not isinstance(hold_out, int | np.integer) or not 0 <= hold_out <= 9:
        classes = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise ArgumentError("hold_out", hold_out, f"pass the class that counts as the anomaly, 0..9 ({classes})")
    if isinstance(scaling, bool) or not isinstance(scaling, int | np.integer) or scaling < 1:
        raise ArgumentError("scaling", scaling, "must be a whole number of at least 1")
    check_fraction("validation", validation)


def _dataset(split: str, images: np.ndarray, classes: np.ndarray, hold_out: int) -> Dataset:
    names = tuple(f"{split}/{i:05d}" for i in range(len(images)))
    kinds = tuple(CLASSES[i] for i in classes)
    return Dataset(images[..., None], classes == hold_out, None, names, names, kinds)


def _read_records(directory: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from jaxvae.data.fashion_mnist import records

    try:
        return {split: records.read(directory, split) for split in FILES}
    # Readers of damaged records raise errors without a common class.
    except Exception as error:
        way_out = f"remove it and run {command('prepare', f'fashion_mnist:{directory}')} again"
        raise InputError(f"{directory / RECORDS}: cannot be read ({reason(error)}); {way_out}") from error
