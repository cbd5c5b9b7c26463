"""FashionMNIST: the held-out class, damaged files, and the records of tensorflow-datasets."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import resource
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvae.data import fashion_mnist
from jaxvae.data.fashion_mnist import idx_files
from jaxvae.errors import InputError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = idx_files.SHA256


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def look_alike(directory: Path, train: int = 40, test: int = 20) -> dict[str, np.ndarray]:
    """Write four small files under the official names, with every class in each; returns their arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        TRAIN_IMAGES: rng.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        TRAIN_LABELS: rng.permutation(np.arange(train) % 10).astype(np.uint8),
        TEST_IMAGES: rng.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        TEST_LABELS: rng.permutation(np.arange(test) % 10).astype(np.uint8),
    }
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        (directory / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return arrays


def test_held_out_class_is_only_in_the_test(tmp_path):
    arrays = look_alike(tmp_path)
    splits = fashion_mnist.load(tmp_path, hold_out=8, validation=0.25, verify=False)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (27, 9, 20)
    for healthy in (splits.train, splits.validation):
        assert not healthy.labels.any()
        assert "Bag" not in healthy.kinds
    assert not set(splits.train.names) & set(splits.validation.names)
    np.testing.assert_array_equal(splits.test.labels, arrays[TEST_LABELS] == 8)
    assert splits.test.kinds == tuple(fashion_mnist.CLASSES[i] for i in arrays[TEST_LABELS])
    for part in (splits.train, splits.validation):
        index = [int(name.removeprefix("train/")) for name in part.names]
        np.testing.assert_array_equal(part.images[..., 0], arrays[TRAIN_IMAGES][index])


def test_scaling_stacks_the_image(tmp_path):
    look_alike(tmp_path)
    one = fashion_mnist.load(tmp_path, hold_out=0, verify=False).test.images
    three = fashion_mnist.load(tmp_path, hold_out=0, scaling=3, verify=False).test.images
    assert three.shape == (20, 84, 28, 1)
    assert three.dtype == np.uint8
    np.testing.assert_array_equal(three, np.concatenate([one, one, one], axis=1))


def test_plain_and_compressed_files_read_the_same(tmp_path):
    array = look_alike(tmp_path)[TEST_IMAGES]
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / "plain"), array)
    np.testing.assert_array_equal(fashion_mnist.read_idx(tmp_path / f"{TEST_IMAGES}.gz"), array)


@pytest.mark.parametrize("hold_out", [None, -1, 10, "Bag", True, 8.0])
def test_only_a_class_can_be_held_out(tmp_path, hold_out):
    with pytest.raises(InputError, match=r"hold_out=.*0\.\.9.*8 Bag"):
        fashion_mnist.load(tmp_path, hold_out=hold_out)


@pytest.mark.parametrize("arguments", [{"scaling": 0}, {"scaling": 1.5}, {"validation": 1.0}, {"validation": -0.1}])
def test_arguments_out_of_range_are_named(tmp_path, arguments):
    with pytest.raises(InputError, match=f"^{next(iter(arguments))}="):
        fashion_mnist.load(tmp_path, hold_out=8, **arguments)


@pytest.mark.parametrize("exists", [False, True])
def test_missing_files_are_named_with_the_download_command(tmp_path, exists):
    directory = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(InputError, match=f"jaxvae prepare fashion_mnist:{directory}") as error:
        fashion_mnist.load(directory, hold_out=8)
    assert all(f"{name}.gz" in str(error.value) for name in idx_files.SHA256)


def test_one_missing_file_is_named(tmp_path):
    look_alike(tmp_path)
    (tmp_path / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(InputError, match=f"no {TEST_LABELS}.gz there"):
        fashion_mnist.load(tmp_path, hold_out=8, verify=False)


def test_other_files_need_verify_false(tmp_path):
    look_alike(tmp_path)
    with pytest.raises(InputError, match=r"not the official file.*verify=False"):
        fashion_mnist.load(tmp_path, hold_out=8)


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


def test_a_missing_network_is_reported_within_seconds(tmp_path, monkeypatch):
    # Names that end in .invalid are never resolved (RFC 2606).
    monkeypatch.setattr(idx_files, "URL", "http://fashion-mnist.invalid")
    start = time.monotonic()
    with pytest.raises(InputError, match=f"does not answer.*{TRAIN_IMAGES}.gz.*{tmp_path / 'new'}"):
        fashion_mnist.download(tmp_path / "new")
    assert time.monotonic() - start < 10
    assert not (tmp_path / "new").exists()


def test_a_silent_host_is_reported_within_seconds(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(idx_files, "URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(InputError, match="does not answer"):
            fashion_mnist.download(tmp_path / "new")
        assert time.monotonic() - start < 10


def test_download_keeps_a_complete_folder(tmp_path):
    look_alike(tmp_path)
    before = sorted(tmp_path.iterdir())
    fashion_mnist.download(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def builder(monkeypatch):
    """The builder's module, with the checksums of a given folder instead of the official ones."""
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.utils import Size

    from jaxvae.data.fashion_mnist import records

    def expect(directory: Path, url: str):
        infos = {}
        for path in directory.glob("*.gz"):
            content = path.read_bytes()
            checksum = hashlib.sha256(content).hexdigest()
            infos[f"{url}/{path.name}"] = UrlInfo(size=Size(len(content)), checksum=checksum, filename=path.name)
        monkeypatch.setattr(idx_files, "URL", url)
        monkeypatch.setattr(records.FashionMnistRecords, "url_infos", infos)
        return records

    return expect


@pytest.fixture
def website(tmp_path):
    """The address of a web server of look-alike files, and the folder it serves."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    folder = tmp_path / "website"
    look_alike(folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_downloaded_records_equal_the_files(tmp_path, builder, website):
    url, folder = website
    builder(folder, url)
    fashion_mnist.download(tmp_path / "new")
    ours = fashion_mnist.load(tmp_path / "new", hold_out=3, validation=0.2)
    files = fashion_mnist.load(folder, hold_out=3, validation=0.2, verify=False)
    for split in ("train", "validation", "test"):
        a, b = getattr(ours, split), getattr(files, split)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert (a.names, a.groups, a.kinds) == (b.names, b.groups, b.kinds)
        assert a.images.dtype == np.uint8


def test_a_download_of_other_bytes_is_refused(tmp_path, builder, website):
    url, folder = website
    builder(folder, url)
    # Three of the files exist already, so that no other download runs when this one fails.
    new = tmp_path / "new"
    shutil.copytree(folder, new)
    (new / f"{TEST_IMAGES}.gz").unlink()
    (folder / f"{TEST_IMAGES}.gz").write_bytes(gzip.compress(b"not what was promised"))
    with pytest.raises(InputError, match=r"download of FashionMNIST failed.*checksum"):
        fashion_mnist.download(new)
    assert not (new / idx_files.RECORDS).exists()


def test_records_are_prepared_from_copied_files(tmp_path, builder):
    arrays = look_alike(tmp_path)
    module = builder(tmp_path, "http://fashion-mnist.invalid")
    module.prepare(tmp_path)
    images, classes = module.read(tmp_path, "train")
    np.testing.assert_array_equal(images, arrays[TRAIN_IMAGES])
    np.testing.assert_array_equal(classes, arrays[TRAIN_LABELS])


def test_damaged_records_are_named(tmp_path, builder):
    look_alike(tmp_path)
    builder(tmp_path, "http://fashion-mnist.invalid").prepare(tmp_path)
    (tmp_path / f"{TEST_IMAGES}.gz").unlink()
    for path in (tmp_path / idx_files.RECORDS).glob("*array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=f"{idx_files.RECORDS}.*remove it and run `jaxvae prepare"):
        fashion_mnist.load(tmp_path, hold_out=8)


def test_the_official_files(data):
    splits = fashion_mnist.load(data / "fashion-mnist", hold_out=8, validation=0.1, seed=1)
    assert splits.train.images.shape == (48600, 28, 28, 1)
    assert splits.validation.images.shape == (5400, 28, 28, 1)
    assert splits.test.images.shape == (10000, 28, 28, 1)
    assert splits.test.labels.sum() == 1000
    assert {splits.test.kinds[i] for i in np.flatnonzero(splits.test.labels)} == {"Bag"}
    # The mean grey value of the 60,000 training images is known to be 0.2860.
    images = fashion_mnist.read_idx(data / "fashion-mnist" / f"{TRAIN_IMAGES}.gz")
    assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
