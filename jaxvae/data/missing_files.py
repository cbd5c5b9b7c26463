"""Errors for files and folders that are missing or empty, and broken links."""

import os
from pathlib import Path

from jaxvae.errors import InputError


def is_dangling(path: Path) -> bool:
    """Whether a path is a broken link, such as those that git-annex leaves."""
    return os.path.islink(path) and not os.path.exists(path)


def is_annexed(path: Path) -> bool:
    """Whether a link leads to the store of git-annex."""
    return "annex/objects/" in os.readlink(path)


def refuse_dangling(path: Path) -> None:
    """Raise InputError if a path is a broken link."""
    if is_dangling(path):
        if is_annexed(path):
            raise InputError(f"{path}: its content was not fetched (a broken link); run `datalad get` on it")
        raise InputError(f"{path}: is a broken link ({os.readlink(path)} is missing); repair or remove the link")


def existing_folder(path: str | Path) -> Path:
    """The path of a folder. Raises InputError if there is none."""
    path = Path(path)
    refuse_dangling(path)
    if not path.is_dir():
        raise InputError(f"{path}: {'is a file; pass its folder' if path.exists() else 'no such folder'}")
    return path


def refuse_unreadable(path: Path) -> None:
    """Raise InputError unless a path is a regular file that is not empty."""
    refuse_dangling(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path}: is {'a folder; name a file' if path.is_dir() else 'not a regular file'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; copy it again")
