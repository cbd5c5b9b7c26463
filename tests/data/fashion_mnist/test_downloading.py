"""Downloading FashionMNIST, and its records of tensorflow-datasets."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import shutil
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fashion_files import TEST_IMAGES, TRAIN_IMAGES, TRAIN_LABELS, look_alike
from jaxvae.data import fashion_mnist
from jaxvae.data.fashion_mnist import idx_files
from jaxvae.errors import InputError


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
