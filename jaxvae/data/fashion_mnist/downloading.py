"""Downloading FashionMNIST."""

from __future__ import annotations

import http.client
import threading
import urllib.request
from pathlib import Path

from jaxvae.data.fashion_mnist import idx_files
from jaxvae.data.fashion_mnist.idx_files import FILES, RECORDS, SHA256
from jaxvae.errors import InputError, reason


def download(directory: str | Path) -> None:
    """Fetch FashionMNIST into `directory`, for `load` to read; what is there already is kept and used.

    tensorflow-datasets downloads the four files, checks them, and prepares them as array_record, without TensorFlow.

    Raises:
      InputError: the host does not answer (said within seconds), or the download fails.
    """
    directory = Path(directory)
    if (directory / RECORDS).is_dir() or len(idx_files.find(directory)) == len(SHA256):
        return
    by_hand = f"put {idx_files.names()} from another machine into {directory} by hand, which is all that is needed"
    # tensorflow-datasets would try for minutes before it says that there is no network.
    problem = _unreachable(f"{idx_files.URL}/{FILES['test'][1]}.gz", seconds=3.0)
    if problem:
        raise InputError(
            f"{directory}: cannot download FashionMNIST, {idx_files.URL} does not answer ({problem}); {by_hand}"
        )

    from jaxvae.data.fashion_mnist import records

    try:
        directory.mkdir(parents=True, exist_ok=True)
        records.prepare(directory)
    # What a broken connection, a full disk or a wrong checksum raises here has no common class.
    except Exception as error:
        raise InputError(f"{directory}: the download of FashionMNIST failed ({reason(error)}); {by_hand}") from error


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
            problem[0] = reason(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * seconds)
    return problem[0]
