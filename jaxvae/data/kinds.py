"""The kinds of data: how each is opened, and the settings it takes.

They are phantom, fashion_mnist, images and volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxvae import files
from jaxvae.errors import ArgumentError, InputError, did_you_mean, refuse_below_zero

if TYPE_CHECKING:
    from jaxvae.data.dataset import Fingerprint, Splits
    from jaxvae.data.images.preparation import Preparation

PREFIX = "fashion_mnist:"
# The types of the JSON values of a `Source`.
FACTS = {
    **{"data": str, "hold_out?": int | None, "scaling?": int, "size": int | list | None, "channels": list | None},
    **{"normalise?": str, "validation?": int | float, "test?": int | float, "split_seed?": int},
}


@dataclass(frozen=True)
class Source:
    """Which images a run uses, and how they are prepared and split."""

    data: str = "phantom"
    """`phantom` (synthetic brain slices), `fashion_mnist:DIR` (its four IDX files), a folder of images (train/good,
    test/KIND and ground_truth/KIND; or CASE/NAME.tif beside CASE/NAME_mask.tif; or just images), or volumes that
    `jaxvae prepare` cut into slices"""
    hold_out: int | None = None
    """fashion_mnist only: the class 0..9 that is the anomaly"""
    scaling: int = 1
    """fashion_mnist only: how often each image is stacked (the paper's input scaling)"""
    size: tuple[int, ...] | None = None
    """pixels in height and width to resize to; the first of two numbers is the height"""
    channels: tuple[int, ...] | None = None
    """folders of images only: the channels to keep, counted from 0"""
    normalise: Literal["none", "zscore", "robust"] = "none"
    """folders of images only: per image, zscore by mean and standard deviation, robust by median and absolute
    deviation"""
    validation: float = 0.1
    """fraction of the healthy training images (or cases, or patients) used for validation, unless the folder has
    validation images"""
    test: float = 0.3
    """folders of cases and volumes with lesions only: fraction of the cases or patients used for testing"""
    split_seed: int = 0
    """random seed of the splits and of the phantoms"""


@dataclass(frozen=True)
class Kind:
    """A kind of data: one row of the table at the end of this module."""

    name: str
    words: str  # how error messages name it
    settings: tuple[str, ...]  # of those that only some kinds take, the ones that this kind takes
    load: Callable[[Source], Splits]
    model: Literal["dense", "conv"] = "conv"  # what the paper uses for such images
    resizing: str | None = "add"  # the verb before `size` in advice, None if the size is fixed
    instead: Mapping[str, str] = field(default_factory=dict)  # what to do instead of a setting it does not take


def kind_of(source: Source) -> Kind:
    """The kind of a source; prepared volumes are folders with a cache.json."""
    if source.data == "phantom" or source.data.startswith(PREFIX):
        return _kind(source.data, are_volumes=False)
    from jaxvae.data.volumes import cache

    return _kind(source.data, are_volumes=cache.is_cache(source.data))


def kind_of_config(config: Mapping[str, Any]) -> Kind:
    """The kind of data of a run, from its config.json alone."""
    return _kind(config["data"]["data"], are_volumes=config.get("volumes") is not None)


def _kind(data: str, *, are_volumes: bool) -> Kind:
    if data == "phantom":
        return PHANTOM
    return FASHION_MNIST if data.startswith(PREFIX) else VOLUMES if are_volumes else IMAGES


def folder_of(source: Source) -> Path | None:
    """The folder that holds the data of a source; None for phantoms."""
    return None if source.data == "phantom" else Path(source.data.removeprefix(PREFIX))


def open_splits(source: Source) -> Splits:
    """Load the images of a source, split into training, validation and test images.

    Raises:
      InputError: a setting does not go with the kind of data, or something is wrong with the images.
    """
    kind = kind_of(source)
    _refuse_settings(source, kind)
    if kind is FASHION_MNIST and source.hold_out is None:
        raise InputError("`hold_out` is missing: the FashionMNIST class 0..9 that is the anomaly")
    refuse_below_zero("split_seed", source.split_seed)
    if not 0 <= source.validation < 1:
        raise ArgumentError("validation", source.validation, "must be a fraction, at least 0 and below 1")
    return kind.load(source)


def open_training(source: Source) -> Splits:
    """Load the images of a source, with the checks for training.

    Some images must be healthy, and all values finite.

    Raises:
      InputError: as `open_splits`, or the images cannot be trained on.
    """
    import numpy as np

    splits = open_splits(source)
    if len(splits.train) == 0:
        raise ArgumentError("data", source.data, "no healthy image is left to train on; lower `validation` or `test`")
    for part in (splits.train, splits.validation, splits.test):
        if part.images.dtype != np.uint8 and not np.isfinite(part.images).all():
            worst = part.names[int(np.argmin(np.isfinite(part.images).all(axis=(1, 2, 3))))]
            raise ArgumentError("data", source.data, f"{worst} holds NaN or infinity; repair it or take it out")
    return splits


def _refuse_settings(source: Source, kind: Kind) -> None:
    """Raise ArgumentError if a setting is given that this kind of data does not take."""
    for name in dict.fromkeys(name for one in KINDS for name in one.settings):
        value = getattr(source, name)
        if name in kind.settings or value == getattr(Source(), name):
            continue
        takers = " or ".join(one.words for one in KINDS if name in one.settings)
        problem = kind.instead.get(name, f"only goes with {takers}, and `data` is {source.data!r}")
        raise ArgumentError(name, value, problem)


def sides_of(source: Source) -> tuple[int, int] | None:
    """The height and width to resize to; None if images keep their size."""
    if source.size is None:
        return None
    if len(source.size) not in (1, 2):
        raise ArgumentError("size", source.size, "give one number, or height and width")
    return source.size[0], source.size[-1]


def preparation(source: Source) -> Preparation:
    """What is done to every image of a folder."""
    from jaxvae.data.images.preparation import Preparation

    return Preparation(size=sides_of(source), channels=source.channels, normalise=source.normalise)


def to_config(source: Source) -> dict[str, Any]:
    """A source as JSON values, with absolute folders."""
    folder, prefix = folder_of(source), PREFIX if source.data.startswith(PREFIX) else ""
    return {
        **asdict(source),
        "data": source.data if folder is None else f"{prefix}{folder.absolute()}",
        "channels": source.channels and list(source.channels),
        "size": source.size[0] if source.size and len(source.size) == 1 else source.size and list(source.size),
    }


def from_config(config: dict[str, Any]) -> Source:
    """The source that `to_config` wrote. Raises InputError for other versions."""
    problem = "config.json: its data are not as this version writes them"
    files.check(config, problem, FACTS, "train again")
    size = [config["size"]] if isinstance(config["size"], int) else config["size"]
    lists = {"channels": config["channels"], "size": size}
    if any(type(number) is not int for numbers in lists.values() for number in numbers or ()):
        raise InputError(f"{problem}: size and channels are whole numbers; train again")
    try:
        return Source(**{**config, **{name: value and tuple(value) for name, value in lists.items()}})
    except TypeError as error:
        raise InputError(f"{problem} ({error}); train again") from error


def describe(source: Source, splits: Splits) -> dict[str, Any]:
    """The entries of config.json that say which images a run uses."""
    from jaxvae.data.dataset import contents, fingerprint
    from jaxvae.data.volumes import cache, slices

    volumes = None
    if kind_of(source) is VOLUMES:
        opened = cache.open_cache(source.data)
        volumes = {"slicing": slices.to_config(opened.slicing), "hash": opened.hash}
    images = {
        "shape": list(splits.train.images.shape[1:]),
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "image_names": fingerprint(splits),
        # Prepared volumes have a hash, and too many slices to read all of them.
        "contents": None if volumes else contents(splits.train.images, splits.validation.images),
    }
    return {"data": to_config(source), "volumes": volumes, "images": images}


def with_new_names(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json or plan.json in which `learnt_from` is named `image_names`."""
    images = config.get("images")
    if not isinstance(images, dict) or "learnt_from" not in images:
        return config
    renamed = {("image_names" if name == "learnt_from" else name): value for name, value in images.items()}
    return {**config, "images": renamed}


def fingerprint_of(config: Mapping[str, Any]) -> Fingerprint | None:
    """The fingerprint of a run's images; None in earlier versions."""
    volumes = config.get("volumes")
    return volumes.get("hash") if volumes else config.get("images", {}).get("contents")


def same_images(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool | None:
    """Whether two configurations have the same training and validation images.

    Their folders may differ. None if that is unknown: runs of earlier versions have a fingerprint of the names only.
    """
    from jaxvae.data.dataset import same_fingerprint

    return same_fingerprint(fingerprint_of(there), fingerprint_of(here))


def record_left_out(directory: Path, splits: Splits) -> None:
    """Write left_out.jsonl: the files that are not used, with their reasons."""
    path = directory / "left_out.jsonl"
    if splits.left_out or path.is_file():
        files.write_lines(path, list(splits.left_out))


def _load_phantom(source: Source) -> Splits:
    from jaxvae.data import phantom

    height, width = sides_of(source) or (64, 64)
    if height != width:
        raise ArgumentError("size", (height, width), "phantoms are as wide as high; give one number")
    return phantom.load(size=height, seed=source.split_seed, validation=source.validation)


def _load_fashion_mnist(source: Source) -> Splits:
    from jaxvae.data import fashion_mnist

    folder, hold_out = source.data.removeprefix(PREFIX), source.hold_out
    assert hold_out is not None
    scaling, validation, seed = source.scaling, source.validation, source.split_seed
    return fashion_mnist.load(folder, hold_out=hold_out, scaling=scaling, validation=validation, seed=seed)


def _load_images(source: Source) -> Splits:
    from jaxvae.data import images

    if not Path(source.data).exists():
        word, colon, rest = source.data.partition(":")
        meant = did_you_mean(word, [FASHION_MNIST.name, PHANTOM.name])
        rest = f":{rest or 'DIR'}" if FASHION_MNIST.name in meant else colon + rest
        raise InputError(f"{source.data}: no such folder{meant.replace('?', f'{rest}?')}")
    prepared, validation, test = preparation(source), source.validation, source.test
    return images.load(source.data, preparation=prepared, validation=validation, test=test, seed=source.split_seed)


def _load_volumes(source: Source) -> Splits:
    from jaxvae.data.volumes import cache

    return cache.load(source.data, validation=source.validation, test=source.test, seed=source.split_seed)


PHANTOM = Kind("phantom", "`data` phantom", ("size",), _load_phantom)
FASHION_MNIST = Kind(
    "fashion_mnist",
    "`data` fashion_mnist:DIR",
    ("hold_out", "scaling"),
    _load_fashion_mnist,
    model="dense",
    resizing=None,
    instead={"size": "FashionMNIST is 28x28; leave it out, or use `scaling`"},
)
IMAGES = Kind("images", "a folder of images", ("size", "channels", "normalise", "test"), _load_images)
VOLUMES = Kind(
    "volumes",
    "prepared volumes",
    ("test",),
    _load_volumes,
    resizing="prepare them again with",
    instead={"size": "volumes have the size they were prepared with; prepare them again"},
)
KINDS = (PHANTOM, FASHION_MNIST, IMAGES, VOLUMES)
