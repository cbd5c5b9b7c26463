"""Patterns of files below a folder, with stars that stand for something.

`*` stands for a part of a name and `**/` for any number of folders. Hidden files, and those below `derivatives`, are
not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from jaxvae.data import volumes
from jaxvae.errors import ArgumentError, InputError


def matches(directory: Path, pattern: str) -> tuple[list[tuple[Path, tuple[str, ...]]], list[OSError]]:
    """The visible volumes at a pattern, in order, with what each of its stars stands for; and errors, if it was walked.

    Raises:
      InputError: no pattern of files below the folder.
    """
    regex = re.compile(_regex(pattern))
    if "**/" in pattern:
        paths, errors = volumes_below(directory)
    else:
        paths, errors = sorted(path for path in _glob(directory, pattern) if _visible(path, directory)), []
    found = [(path, regex.fullmatch(path.relative_to(directory).as_posix())) for path in paths]
    return [(path, match.groups()) for path, match in found if match], errors


def volumes_below(directory: Path) -> tuple[list[Path], list[OSError]]:
    """`files_below`, of the visible volumes."""
    paths, errors = files_below(directory, lambda path: _hidden(path.relative_to(directory)))
    return [path for path in paths if volumes.is_volume(path)], errors


def files_below(directory: Path, hidden: Callable[[Path], bool]) -> tuple[list[Path], list[OSError]]:
    """All files anywhere below a folder, in order, and an error for each folder that cannot be opened.

    Folders that are links are followed, which `Path.glob` does not; each folder is looked into once.
    """
    paths: list[Path] = []
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(directory, followlinks=True, onerror=errors.append):
        place = os.stat(root)
        # Nothing below these is visible, and there may be much of it.
        folders[:] = sorted(name for name in folders if not hidden(Path(root, name)))
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        paths += (path for path in (Path(root, name) for name in names) if path.is_file() and not hidden(path))
    return sorted(paths), errors


def stars(pattern: str) -> int:
    """How many stars a pattern has.

    >>> stars("sub-*/**/*_T2w.nii.gz")
    3
    """
    return re.compile(_regex(pattern)).groups


def _regex(pattern: str) -> str:
    """The pattern as a regular expression with a group a star.

    >>> re.fullmatch(_regex("**/*_t2.nii.gz"), "HGG/a_1/a_1_t2.nii.gz").groups()
    ('HGG/a_1/', 'a_1')
    """
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    groups = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    return "".join(groups.get(part) or _bracket(part) or re.escape(part) for part in parts)


def _bracket(part: str) -> str | None:
    """`[a-c]` and `[!a-c]` as regular expressions, where they are any; else they stand for themselves."""
    if not re.fullmatch(r"\[[^]]+\]", part):
        return None
    found = part.replace("[!", "[^", 1)
    try:
        re.compile(found)
    except re.error:
        return None
    return found


def _glob(directory: Path, pattern: str) -> list[Path]:
    try:
        return list(directory.glob(pattern))
    except (NotImplementedError, ValueError) as error:
        reason = str(error).partition(":")[0]
        raise InputError(f"{pattern!r}: no pattern of files below {directory} ({reason})") from error


def _visible(path: Path, directory: Path) -> bool:
    return volumes.is_volume(path) and not _hidden(path.relative_to(directory))


def _hidden(relative: Path) -> bool:
    return relative.parts[0] == "derivatives" or any(part.startswith(".") for part in relative.parts)


def check(pattern: str | None, stars: int, name: str) -> None:
    """Refuses a pattern that asks for a star that there is not.

    Raises:
      InputError: so it is; `name` is what the caller calls the pattern.
    """
    try:
        (pattern or "").format(*[""] * stars)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        known = f"takes {{0}} to {{{stars - 1}}}, one for each star of `images`" if stars else "`images` has no star"
        raise ArgumentError(name, pattern, known) from error


def one_file(directory: Path, pattern: str | None, stars: tuple[str, ...], *, needed: bool) -> Path | None:
    """The one file at a mask's pattern; None if there is no pattern, or no file and none is needed.

    Args:
      stars: what the stars of the scan's pattern stood for, which `{0}`, `{1}` of this one ask for.
    Raises:
      InputError: several files, or none though one is needed.
    """
    if pattern is None:
        return None
    # What a star stood for is taken as it is: a bracket in a folder's name chooses nothing.
    wanted = pattern.format(*(re.sub(r"([*?[])", r"[\1]", star) for star in stars))
    paths = [path for path in _glob(directory, wanted) if path.is_file()]
    if len(paths) > 1:
        # BIDS derivatives come in the scan's own space and, with this in their names, in others'.
        paths = [path for path in paths if "_space-" not in path.name] or paths
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise InputError(f"{len(paths)} masks at {wanted}, such as {paths[0].name}; make the pattern fit one")
    if needed:
        raise InputError(f"its mask {wanted} is missing")
    return None
