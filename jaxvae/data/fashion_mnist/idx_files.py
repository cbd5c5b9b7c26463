"""The four official IDX files of FashionMNIST: names, checksums, reading."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from jaxvae.errors import InputError, reason

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# SHA-256 of the uncompressed bytes, so that a file can be unpacked or compressed again.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
LARGEST = 1 << 28  # bytes of an unpacked IDX file, five times the largest of FashionMNIST
RECORDS = Path("fashion_mnist_records", "1.0.0")


def find(directory: Path) -> dict[str, Path]:
    """{official name: path} of the official files that exist in a folder."""
    paths = [(name, directory / file) for name in SHA256 for file in (name, f"{name}.gz")]
    return {name: path for name, path in paths if path.is_file()}


def read_pair(
    found: dict[str, Path], images_name: str, labels_name: str, verify: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(images [N, 28, 28], classes [N]), uint8. Raises InputError if damaged."""
    images, labels = (_read_verified(found[name], name, verify) for name in (images_name, labels_name))
    for name, array, axes in ((images_name, images, 3), (labels_name, labels, 1)):
        if array.ndim != axes:
            raise _damaged(found[name], f"has {array.ndim} axes instead of {axes}")
    if len(images) != len(labels):
        raise _damaged(found[images_name], f"{len(images)} images, but {found[labels_name]} has {len(labels)} labels")
    if labels.max(initial=0) > 9:
        raise _damaged(found[labels_name], f"holds class {labels.max()}, but classes are 0..9")
    return images, labels


def _read_verified(path: Path, name: str, verify: bool) -> np.ndarray:
    content = _read_bytes(path)
    array = _parse_idx(path, content)
    if verify and hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise _damaged(path, "not the official file (its SHA-256 differs); pass verify=False for other files")
    return array


def read_idx(path: str | Path) -> np.ndarray:
    """The uint8 array in an IDX file, gzip-compressed or not.

    The format is two zero bytes, a type (8: uint8), the number of axes, a big-endian 32-bit length per axis, the data.

    Raises:
      InputError: the file is missing, empty, truncated, damaged, or not an IDX file of uint8.
    """
    return _parse_idx(Path(path), _read_bytes(Path(path)))


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, f"cannot be read ({reason(error)})") from error
    if len(content) > LARGEST:
        raise _damaged(path, f"holds more than {LARGEST:,} bytes once unpacked")
    return content


def _parse_idx(path: Path, content: bytes) -> np.ndarray:
    if not content:
        raise _damaged(path, "is empty")
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    if content[:3] != b"\x00\x00\x08" or not 1 <= axes <= 4 or len(content) < start:
        raise _damaged(path, f"not an IDX file of uint8 (it starts with {content[:4].hex()})")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=axes, offset=4))
    # math.prod has no overflow, so a header with an impossible shape is compared correctly.
    if len(content) - start != math.prod(shape):
        raise _damaged(path, f"{len(content) - start} bytes of data where its header {shape} needs {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; get it again from {URL}")


def names() -> str:
    *first, last = (f"{name}.gz" for name in SHA256)
    return f"{', '.join(first)} and {last}"
