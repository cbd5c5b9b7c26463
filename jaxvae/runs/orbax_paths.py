"""Paths that Orbax can use, and its errors in one line."""

import errno
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvae import files
from jaxvae.errors import InputError, cannot_be_written, is_out_of_memory, system_error

# Characters with a special meaning for Orbax or TensorStore.
SPECIAL = re.compile(r"[][*?\\]")


def absolute(directory: str | os.PathLike[str]) -> Path:
    """The folder's absolute path, which Orbax needs. Refuses bucket addresses."""
    if re.match(r"\w+:/", os.fspath(directory)):
        raise InputError(f"{os.fspath(directory)}: is not a folder of this machine; mount it (a bucket: gcsfuse)")
    return Path(directory).absolute()


@contextmanager
def orbax_path(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A path of the folder that Orbax can use; the folder is made if it is missing.

    Orbax reads `*`, `?` and `[` in a path as a pattern, and TensorStore reads a backslash as a slash. Paths with such
    names are replaced by a link.
    """
    path = absolute(directory)
    if not SPECIAL.search(str(path)):
        yield path
        return
    path.mkdir(parents=True, exist_ok=True)
    place = "/tmp" if SPECIAL.search(tempfile.gettempdir()) else None
    with tempfile.TemporaryDirectory(prefix="jaxvae-", dir=place, ignore_cleanup_errors=True) as folder:
        link = Path(folder) / "link"
        link.symlink_to(path, target_is_directory=True)
        yield link


def _merge(item: Path) -> None:
    """Complete a checkpoint that Orbax left unmerged, which it did below folders such as `[2024]`.

    The arrays are in a separate database of process 0. They are copied to where Orbax reads, the manifest last, since
    a database is read from its manifest.
    """
    parts = [path for path in item.iterdir() if path.name.startswith("ocdbt.process_")] if item.is_dir() else []
    if len(parts) == 1 and not (item / "manifest.ocdbt").exists():
        for path in (*parts[0].glob("d/*"), parts[0] / "manifest.ocdbt"):
            files.write(item / path.relative_to(parts[0]), path.read_bytes())


@contextmanager
def readable(directory: str | os.PathLike[str], step: int) -> Iterator[Path]:
    """A path from which Orbax reads the folder, with its errors in one line."""
    place = Path(directory) / str(step)
    try:
        with orbax_path(directory) as path:
            _merge(path / str(step) / "default")
            yield path
    except Exception as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        number = system_error(error)
        if number not in (None, errno.ENOENT):
            problem = f"cannot be read ({os.strerror(number)}); make it readable and try again"
            raise InputError(f"{place}: {problem}") from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        problem = f"cannot be read ({textwrap.shorten(reason, 120)}), probably damaged"
        raise InputError(f"{place}: {problem}; remove it to continue from an earlier checkpoint") from error


@contextmanager
def writable(directory: str | os.PathLike[str], step: int) -> Iterator[None]:
    """Report a full disk and other system errors in one line."""
    try:
        yield
    except Exception as error:
        if system_error(error) is None or isinstance(error, InputError):
            raise
        raise cannot_be_written(Path(directory) / str(step), error) from error
