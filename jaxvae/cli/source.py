"""The flags that say which images, shared by the commands, and the images they name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvae import files
from jaxvae.cli import flags
from jaxvae.cli.complaints import did_you_mean
from jaxvae.cli.words import spaced
from jaxvae.errors import InputError, command

if TYPE_CHECKING:
    from jaxvae.data.dataset import Dataset, Splits
    from jaxvae.data.images.preparation import Preparation
    from jaxvae.runs.checkpoint import Run

FASHION_MNIST = "fashion_mnist:"
# The types of the JSON values of a `Source`.
FACTS = {
    **{"data": str, "hold_out?": int | None, "scaling?": int, "size": int | list | None, "channels": list | None},
    **{"normalise?": str, "validation?": int | float, "test?": int | float, "split_seed?": int},
}
# A text of its own, since tyro keeps the line breaks of longer docstrings.
DATA = (
    "`phantom` (brain-like slices, made on the spot), `fashion_mnist:DIR` (its four IDX files), a folder of images "
    "(train/good, test/KIND and ground_truth/KIND; or CASE/NAME.tif beside CASE/NAME_mask.tif; or just images), or "
    "volumes that `jaxvae prepare` cut into slices"
)


@dataclass(frozen=True)
class Source:
    """Which images, and how they are made ready."""

    data: Annotated[str, tyro.conf.arg(help=DATA)] = "phantom"
    hold_out: Annotated[int | None, flags.optional("INT", "none")] = None
    """fashion_mnist only: the class 0..9 that is the anomaly"""
    scaling: int = 1
    """fashion_mnist only: stack each image so many times, the paper's input scaling"""
    size: Annotated[tuple[int, ...] | None, flags.optional("INT [INT]", "phantom 64, folders as they are")] = None
    """resize to so many pixels in height and width; of two numbers the first is the height"""
    channels: Annotated[tuple[int, ...] | None, flags.optional("INT ...", "all")] = None
    """folders only: the channels to keep, counted from 0"""
    normalise: Literal["none", "zscore", "robust"] = "none"
    """folders only: per image, by mean and standard deviation, or by median and absolute deviation from it"""
    validation: float = 0.1
    """fraction of the healthy training images (of the cases, where there are cases) set aside for validation, unless
    the folder has validation images of its own"""
    test: float = 0.3
    """folders of cases and volumes with lesions only: fraction of the cases or patients to judge"""
    split_seed: int = 0
    """decides who goes into which part, and what a phantom looks like"""


def preparation(source: Source) -> Preparation:
    """What is done to every image of a folder."""
    from jaxvae.data.images.preparation import Preparation

    sides = _sides(source)
    size = None if sides is None else (sides[0], sides[-1])
    return Preparation(size=size, channels=source.channels, normalise=source.normalise)


def _sides(source: Source) -> tuple[int, ...] | None:
    if source.size is not None and len(source.size) not in (1, 2):
        raise InputError(f"--size {spaced(source.size) or 'without a number'}: give one number, or height and width")
    return source.size


def is_fashion_mnist(source: Source) -> bool:
    """Whether `--data fashion_mnist:DIR` was given."""
    return source.data.startswith(FASHION_MNIST)


def is_volumes(source: Source) -> bool:
    """Whether `--data` names a folder of prepared volumes."""
    from jaxvae.data.volumes import cache

    return not is_fashion_mnist(source) and source.data != "phantom" and cache.is_cache(source.data)


def open_splits(source: Source) -> Splits:
    """The images that the flags name.

    Raises:
      InputError: a flag that does not go with the data, or anything wrong with the images.
    """
    is_folder = not is_fashion_mnist(source) and source.data != "phantom"
    images_only, there = is_folder and not is_volumes(source), f", and --data is {source.data!r}"
    flags.refuse_unless(is_fashion_mnist(source), source, ("hold_out", "scaling"), f"--data fashion_mnist:DIR{there}")
    flags.refuse_unless(is_folder, source, ("test",), f"a folder of images or volumes{there}")
    flags.refuse_unless(
        images_only, source, ("channels", "normalise"), f"a folder of images (volumes were prepared){there}"
    )
    if is_volumes(source) and source.size is not None:
        raise InputError(f"--size {spaced(source.size)}: volumes have the size they were prepared with; prepare anew")
    if is_fashion_mnist(source) and source.size is not None:
        raise InputError(f"--size {spaced(source.size)}: FashionMNIST is 28x28; leave it out, or use --scaling")
    if is_fashion_mnist(source) and source.hold_out is None:
        raise InputError("--hold-out is missing: the FashionMNIST class 0..9 that is the anomaly")
    flags.refuse_below_zero("split_seed", source.split_seed)
    if not 0 <= source.validation < 1:
        raise InputError(f"--validation {source.validation}: must be a fraction, at least 0 and below 1")
    return _load(source)


def open_own(run_directory: Path, config: dict[str, Any]) -> Splits:
    """The images of a run, split as when it was trained.

    Args:
      config: of the run, as `train` wrote it.
    Raises:
      InputError: as `open_splits`; they are gone, or other images than the run was trained on.
    """
    from jaxvae.data.dataset import contents, fingerprint, same_contents

    source = from_config(config["data"])
    place = Path(source.data.removeprefix(FASHION_MNIST))
    if source.data != "phantom" and not place.exists():
        raise InputError(
            f"{source.data}: no such folder; if the images of {run_directory} have moved, name their new place once "
            f"with {command('train', run_directory, '--data', 'PLACE')} and the other flags of before"
        )
    splits, was = open_splits(source), config["images"]
    if config.get("volumes"):
        if (volumes_of(source) or {}).get("hash") != config["volumes"]["hash"]:
            raise InputError(f"{source.data}: was prepared anew since the run was trained on it; train a new run")
    elif was.get("contents"):
        now = contents(splits.train.images, splits.validation.images)
        if not same_contents(was["contents"], now):
            raise InputError(
                f"{source.data}: holds other images than when the run was trained; bring those back, or train a new run"
            )
        return splits
    if was.get("learnt_from") not in (None, fingerprint(splits)):
        raise InputError(
            f"{source.data}: holds other images than when the run was trained, so that some of these would be tested; "
            "bring those back, or train a new run"
        )
    return splits


def at_hand(config: dict[str, Any], other: Path | None) -> tuple[dict[str, Any], Path | None]:
    """The configuration of a run and the folder it is tested on, if that is its own prepared volumes that have moved:
    then these are its data, and it is tested on its own test."""
    from jaxvae.data.volumes import cache

    if other is None or not config.get("volumes") or not cache.is_cache(other):
        return config, other
    if cache.open_cache(other).hash != config["volumes"]["hash"] or Path(config["data"]["data"]).exists():
        return config, other
    return {**config, "data": {**config["data"], "data": str(other.absolute())}}, None


def open_other(run_directory: Path, run: Run, folder: Path) -> Dataset:
    """All labelled images of another folder, or all slices of other prepared volumes, to test a run on.

    Raises:
      InputError: they have no labels or are prepared otherwise, or the run was trained on one of them.
    """
    import numpy as np

    from jaxvae.data import images
    from jaxvae.data.dataset import sketches
    from jaxvae.evaluation import volume_tables
    from jaxvae.runs import trained_on

    if not (run_directory / trained_on.FILE).is_file():
        print(
            f"{folder}: the run is of an earlier version and its images are gone, so it may be trained on some of these"
        )
    if run.config.get("volumes"):
        return volume_tables.other_volumes(run_directory, run, folder)
    found, notices = images.load_judged(folder, preparation=preparation(from_config(run.config["data"])))
    for line in notices:
        print(f"{folder}: {line}")
    sketched = sketches(found.images)
    # Images of one value throughout, such as empty ones, are alike wherever they come from.
    sketched[[np.ptp(image) == 0 for image in found.images]] = np.nan
    of_images = dict(zip((str(folder / name) for name in found.names), sketched.tolist(), strict=True))
    trained_on.refuse(run_directory, of_images, folder)
    return found


def _load(source: Source) -> Splits:
    if source.data == "phantom":
        from jaxvae.data import phantom

        sides = _sides(source) or (64,)
        if sides[0] != sides[-1]:
            raise InputError(f"--size {spaced(sides)}: phantoms are as wide as high; give one number")
        return phantom.load(size=sides[0], seed=source.split_seed, validation=source.validation)
    if is_fashion_mnist(source):
        from jaxvae.data import fashion_mnist

        assert source.hold_out is not None
        return fashion_mnist.load(
            source.data.removeprefix(FASHION_MNIST),
            hold_out=source.hold_out,
            scaling=source.scaling,
            validation=source.validation,
            seed=source.split_seed,
        )
    if is_volumes(source):
        from jaxvae.data.volumes import cache

        return cache.load(source.data, validation=source.validation, test=source.test, seed=source.split_seed)
    from jaxvae.data import images

    if not Path(source.data).exists():
        kind, colon, rest = source.data.partition(":")
        meant = did_you_mean(kind, [FASHION_MNIST.rstrip(":"), "phantom"])
        rest = f":{rest or 'DIR'}" if FASHION_MNIST.rstrip(":") in meant else colon + rest
        raise InputError(f"{source.data}: no such folder{meant.replace('?', f'{rest}?')}")
    return images.load(
        source.data,
        preparation=preparation(source),
        validation=source.validation,
        test=source.test,
        seed=source.split_seed,
    )


def to_config(source: Source) -> dict[str, Any]:
    """The flags as JSON values, folders by their absolute path so that a run can be continued from anywhere."""
    config = asdict(source)
    if is_fashion_mnist(source):
        config["data"] = FASHION_MNIST + str(Path(source.data.removeprefix(FASHION_MNIST)).absolute())
    elif source.data != "phantom":
        config["data"] = str(Path(source.data).absolute())
    if source.channels is not None:
        config["channels"] = list(source.channels)
    if source.size is not None:
        config["size"] = source.size[0] if len(source.size) == 1 else list(source.size)
    return config


def volumes_of(source: Source) -> dict[str, Any] | None:
    """What decides the slices of prepared volumes, for config.json; None for other data."""
    if not is_volumes(source):
        return None
    from jaxvae.data.volumes import cache, slices

    opened = cache.open_cache(source.data)
    return {"slicing": slices.to_config(opened.slicing), "hash": opened.hash}


def from_config(config: dict[str, Any]) -> Source:
    """The flags that `to_config` wrote.

    Raises:
      InputError: they are of another version of jaxvae.
    """
    problem = "config.json: its data are not as this version writes them"
    files.check(config, problem, FACTS, "train anew")
    size = [config["size"]] if isinstance(config["size"], int) else config["size"]
    lists = {"channels": config["channels"], "size": size}
    if any(type(number) is not int for numbers in lists.values() for number in numbers or ()):
        raise InputError(f"{problem}: size and channels are whole numbers; train anew")
    try:
        return Source(**{**config, **{name: value and tuple(value) for name, value in lists.items()}})
    except TypeError as error:
        raise InputError(f"{problem} ({error}); train anew") from error
