"""Reading the IDX files of FashionMNIST."""

from __future__ import annotations

import gzip
import resource

import numpy as np
import pytest

from fashion_files import TEST_IMAGES, TRAIN_LABELS, idx_bytes, look_alike
from jaxvae.data import fashion_mnist
from jaxvae.errors import InputError


def test_plain_and_compressed_files_read_the_same(tmp_path):
    array = look_alike(tmp_path)[TEST_IMAGES]
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "plain"), array)
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / f"{TEST_IMAGES}.gz"), array)


GOOD = idx_bytes(np.zeros((3, 2, 2), np.uint8))
DAMAGED = {
    "empty": b"",
    "empty gzip": gzip.compress(b""),
    "cut header": GOOD[:10],
    "cut data": GOOD[:-1],
    "too long": GOOD + b"\0",
    "cut gzip": gzip.compress(GOOD)[:-9],
    "bit flipped in gzip": gzip.compress(GOOD)[:-6] + b"\xff" + gzip.compress(GOOD)[-5:],
    "float32": b"\x00\x00\x0d" + GOOD[3:],
    "no axes": b"\x00\x00\x08\x00\x01",
    "a web page": b"<html><body>Please log in</body></html>",
    "a header of 2^96 bytes": bytes([0, 0, 8, 3]) + b"\xff" * 12,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_named_in_one_line(tmp_path, content):
    path = tmp_path / "damaged.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        fashion_mnist.read_idx(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gzip_bomb_is_refused_in_little_memory(tmp_path):
    header = b"\0\0\x08\x03" + np.array([2**21, 32, 32], ">u4").tobytes()
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(header) + gzip.compress(bytes(1 << 26)) * 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"bomb.gz: holds more than 268,435,456 bytes once unpacked"):
        fashion_mnist.read_idx(tmp_path / "bomb.gz")
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 1 << 30


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        (TRAIN_LABELS, np.zeros(39), "40 images, but .* 39 labels"),
        (TRAIN_LABELS, np.full(40, 10), "class 10"),
        (TRAIN_LABELS, np.zeros((40, 28, 28)), "3 axes instead of 1"),
        (TEST_IMAGES, np.zeros(20), "1 axes instead of 3"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(tmp_path, name, array, said):
    look_alike(tmp_path)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(InputError, match=said):
        fashion_mnist.load(tmp_path, hold_out=8, verify=False)
