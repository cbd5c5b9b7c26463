"""Downloading FashionMNIST."""

import http.client
import threading
import urllib.request
from pathlib import Path

from jaxvae.data.fashion_mnist import idx_files
from jaxvae.data.fashion_mnist.idx_files import FILES, RECORDS, SHA256
from jaxvae.errors import InputError, reason


def download(directory: str | Path) -> None:
    """Download FashionMNIST into `directory`; files that exist are kept.

    tensorflow-datasets downloads the four files, verifies them, and stores them as array_record, without TensorFlow.

    Raises:
      InputError: the host does not answer within seconds, or the download fails.
    """
    directory = Path(directory)
    if (directory / RECORDS).is_dir() or len(idx_files.find(directory)) == len(SHA256):
        return
    by_hand = f"copy {idx_files.names()} from another machine into {directory}"
    # Without a network tensorflow-datasets would try for minutes.
    if problem := _unreachable(f"{idx_files.URL}/{FILES['test'][1]}.gz", seconds=3.0):
        found = f"{idx_files.URL} does not answer ({problem})"
        raise InputError(f"{directory}: cannot download FashionMNIST, {found}; {by_hand}")

    from jaxvae.data.fashion_mnist import records

    try:
        directory.mkdir(parents=True, exist_ok=True)
        records.prepare(directory)
    # Broken connections, full disks and wrong checksums raise errors without a common class.
    except Exception as error:
        raise InputError(f"{directory}: the download of FashionMNIST failed ({reason(error)}); {by_hand}") from error


def _unreachable(url: str, seconds: float) -> str:
    """Why `url` does not answer, empty if it does.

    A thread asks, because name resolution ignores timeouts and a host with many addresses gets a timeout for each.
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
