"""FashionMNIST with one class held out as the anomaly, the setting of Zimmerer et al. 2019 for scores of whole images.

The four official IDX files are read directly, compressed or not; `download` fetches them where they are missing.

References: Xiao et al., "Fashion-MNIST", 2017 (arXiv 1708.07747).
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import threading
import urllib.request
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxvae.data.dataset import Dataset, Splits, check_fraction, split_groups, take
from jaxvae.errors import ArgumentError, InputError, command

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Of the uncompressed bytes, so that a file which was unpacked or packed again is still known for the official one.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 1 << 28  # bytes of an IDX file once unpacked, five times those of FashionMNIST
RECORDS = Path("fashion_mnist_records", "1.0.0")


def load(
    directory: str | Path,
    *,
    hold_out: int,
    scaling: int = 1,
    validation: float = 0.0,
    seed: int = 0,
    verify: bool = True,
) -> Splits:
    """FashionMNIST without one class to learn from, and the whole test set to find that class in.

    Args:
      directory: holds the four IDX files under their official names, with or without `.gz`, or what `download` left.
      hold_out: the class that counts as the anomaly, 0..9 as in `CLASSES`.
      scaling: each image is stacked this many times vertically, the paper's input scaling.
      validation: fraction of the training images set aside, at random by `seed`.
      verify: refuse files that differ from the official ones by SHA-256; False for look-alikes.
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
    healthy, healthy_validation = split_groups(take(train, ~train.labels), validation, seed)
    return Splits(
        train=_stack(healthy, scaling),
        validation=_stack(healthy_validation, scaling),
        test=_stack(test, scaling),
    )


def read(directory: str | Path, *, verify: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{split: (images [N, 28, 28] uint8, classes [N])}, train and test, as `load` finds them in a directory.

    Raises:
      InputError: a file is missing, damaged or not the official one.
    """
    directory = Path(directory)
    found = _find(directory)
    missing = [f"{name}.gz" for name in SHA256 if name not in found]
    if not missing:
        return {split: _read_pair(found, *names, verify) for split, names in FILES.items()}
    if (directory / RECORDS).is_dir():
        return _read_records(directory)
    problem = f"no {', '.join(missing)} there" if directory.is_dir() else "no such directory"
    raise InputError(
        f"{directory}: {problem}; FashionMNIST is {_names()}: put them there by hand, or let "
        f"{command('prepare', f'fashion_mnist:{directory}')} download them"
    )


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an IDX file, gzip-compressed or not, told apart by its first bytes.

    The format is two zero bytes, a type (8: uint8), the number of axes, one big-endian 32-bit length an axis, the data.

    Raises:
      InputError: the file is missing, empty, truncated, damaged, or no IDX file of uint8.
    """
    return _parse_idx(Path(path), _read_bytes(Path(path)))


def download(directory: str | Path) -> None:
    """Fetch FashionMNIST into `directory`, for `load` to read; what is there already is kept and used.

    tensorflow-datasets downloads the four files, checks them, and prepares them as array_record, without TensorFlow.

    Raises:
      InputError: the host does not answer (said within seconds), or the download fails.
    """
    directory = Path(directory)
    if (directory / RECORDS).is_dir() or len(_find(directory)) == len(SHA256):
        return
    by_hand = f"put {_names()} from another machine into {directory} by hand, which is all that is needed"
    # tensorflow-datasets would try for minutes before it says that there is no network.
    problem = _unreachable(f"{URL}/{FILES['test'][1]}.gz", seconds=3.0)
    if problem:
        raise InputError(f"{directory}: cannot download FashionMNIST, {URL} does not answer ({problem}); {by_hand}")

    from jaxvae.data.fashion_mnist import records

    try:
        directory.mkdir(parents=True, exist_ok=True)
        records.prepare(directory)
    # What a broken connection, a full disk or a wrong checksum raises here has no common class.
    except Exception as error:
        raise InputError(f"{directory}: the download of FashionMNIST failed ({_one_line(error)}); {by_hand}") from error


def _check_arguments(hold_out: object, scaling: object, validation: float) -> None:
    if isinstance(hold_out, bool) or not isinstance(hold_out, int | np.integer) or not 0 <= hold_out <= 9:
        classes = ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES))
        raise ArgumentError("hold_out", hold_out, f"pass the class that counts as the anomaly, 0..9 ({classes})")
    if isinstance(scaling, bool) or not isinstance(scaling, int | np.integer) or scaling < 1:
        raise ArgumentError("scaling", scaling, "pass a whole number of at least 1, how often an image is stacked")
    check_fraction("validation", validation)


def _dataset(split: str, images: np.ndarray, classes: np.ndarray, hold_out: int) -> Dataset:
    names = tuple(f"{split}/{i:05d}" for i in range(len(images)))
    return Dataset(
        images=images[..., None],
        labels=classes == hold_out,
        masks=None,
        names=names,
        groups=names,
        kinds=tuple(CLASSES[i] for i in classes),
    )


def _stack(dataset: Dataset, scaling: int) -> Dataset:
    return replace(dataset, images=np.tile(dataset.images, (1, scaling, 1, 1)))


def _find(directory: Path) -> dict[str, Path]:
    """{official name: the file}, of those that are there."""
    paths = [(name, directory / file) for name in SHA256 for file in (name, f"{name}.gz")]
    return {name: path for name, path in paths if path.is_file()}


def _read_records(directory: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from jaxvae.data.fashion_mnist import records

    try:
        return {split: records.read(directory, split) for split in FILES}
    # Readers of damaged records raise errors of no common class.
    except Exception as error:
        way_out = f"remove it and run {command('prepare', f'fashion_mnist:{directory}')} again"
        raise InputError(f"{directory / RECORDS}: cannot be read ({_one_line(error)}); {way_out}") from error


def _read_pair(
    found: dict[str, Path], images_name: str, labels_name: str, verify: bool
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (_read_verified(found[name], name, verify) for name in (images_name, labels_name))
    for name, array, axes in ((images_name, images, 3), (labels_name, labels, 1)):
        if array.ndim != axes:
            raise InputError(
                f"{found[name]}: an array of {array.ndim} axes instead of {axes}; is it another file, renamed?"
            )
    if len(images) != len(labels):
        raise InputError(
            f"{found[images_name]}: {len(images)} images, but {found[labels_name]} has {len(labels)} labels; "
            "get both anew, from one source"
        )
    if labels.max(initial=0) > 9:
        raise InputError(f"{found[labels_name]}: holds class {labels.max()}; the classes are 0..9")
    return images, labels


def _read_verified(path: Path, name: str, verify: bool) -> np.ndarray:
    content = _read_bytes(path)
    array = _parse_idx(path, content)
    if verify and hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise InputError(
            f"{path}: not the official file (its SHA-256 differs); get it from {URL}, "
            "or pass verify=False for a look-alike"
        )
    return array


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; {command('prepare', f'fashion_mnist:{path.parent}')} downloads it"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)}); get it anew from {URL}") from error
    if len(content) > LARGEST:
        raise InputError(f"{path}: holds more than {LARGEST:,} bytes once unpacked; get it anew from {URL}")
    return content


def _parse_idx(path: Path, content: bytes) -> np.ndarray:
    if not content:
        raise InputError(f"{path}: is empty; get it anew from {URL}")
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    if content[:3] != b"\x00\x00\x08" or not 1 <= axes <= 4 or len(content) < start:
        raise InputError(
            f"{path}: not an IDX file of uint8 (it starts with {content[:4].hex()}); get it anew from {URL}"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=axes, offset=4))
    # math.prod has no overflow, so a header that claims the impossible is told from the file's true length.
    if len(content) - start != math.prod(shape):
        raise InputError(
            f"{path}: {len(content) - start} bytes of data where its header {shape} asks for {math.prod(shape)}; "
            f"truncated? get it anew from {URL}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _names() -> str:
    *first, last = (f"{name}.gz" for name in SHA256)
    return f"{', '.join(first)} and {last}"


def _unreachable(url: str, seconds: float) -> str:
    """Why `url` does not answer; empty when it does.

    Asked in a thread: name resolution keeps to no timeout, and a host of many addresses spends one on each.
    """
    problem = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            problem[0] = ""
        except (OSError, http.client.HTTPException) as error:
            problem[0] = _one_line(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * seconds)
    return problem[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
