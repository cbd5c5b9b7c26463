"""Patterns of files below a folder, with stars that stand for something.

`*` stands for a part of a name and `**/` for any number of folders. Hidden files, and those below `derivatives`, are
not seen. A link to nothing is seen: it is a file that is missing, which only its reader can say.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from jaxvae.data.volumes import volume_files
from jaxvae.errors import InputError
from jaxvae.files import is_dangling


def matches(directory: Path, pattern: str) -> tuple[list[tuple[Path, tuple[str, ...]]], list[OSError]]:
    """The visible volumes at a pattern, in order, with what each of its stars stands for.

    Returns:
      The volumes, and an error for each folder on the way that cannot be opened or is a link to nothing.

    Raises:
      InputError: the pattern is not one of files below the folder.
    """
    if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise InputError(f"{pattern!r}: no pattern of files below {directory}; leave out '..' and the first '/'")
    leads = re.compile(_leading(pattern))

    def hidden(path: Path) -> bool:
        relative = path.relative_to(directory)
        return _hidden(relative) or not leads.fullmatch(f"/{relative.as_posix()}")

    paths, errors = volumes_below(directory, hidden)
    whole = re.compile(regex(pattern))
    found = [(path, whole.fullmatch(path.relative_to(directory).as_posix())) for path in paths]
    return [(path, match.groups()) for path, match in found if match], errors


def volumes_below(directory: Path, hidden: Callable[[Path], bool] | None = None) -> tuple[list[Path], list[OSError]]:
    """The volumes below a folder, in order, links to nothing among them.

    Args:
      hidden: which files and folders are passed over; None: the hidden ones, and those below `derivatives`.

    Returns:
      The volumes, and an error for each folder that cannot be opened or is a link to nothing.
    """
    paths, errors = files_below(directory, hidden or (lambda path: _hidden(path.relative_to(directory))))
    errors += [
        FileNotFoundError(errno.ENOENT, "a link to nothing", str(path)) for path in paths if _is_missing_folder(path)
    ]
    return [path for path in paths if volume_files.is_volume(path)], errors


def files_below(directory: Path, hidden: Callable[[Path], bool]) -> tuple[list[Path], list[OSError]]:
    """All files anywhere below a folder, in order, and an error for each folder that cannot be opened.

    Folders that are links are followed, which `Path.glob` does not; each folder is read once. Links to nothing are
    among the files (`is_dangling` tells them), because a file that was not fetched must not go unnoticed.
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
        below = (Path(root, name) for name in names)
        paths += (path for path in below if not hidden(path) and (os.path.isfile(path) or is_dangling(path)))
    return sorted(paths), errors


def refuse_dangling(path: Path) -> None:
    """Refuse a link to nothing.

    Raises:
      InputError: the path is a link whose target is missing.
    """
    if not is_dangling(path):
        return
    target = os.readlink(path)
    if _is_annexed(target):
        raise InputError(f"{path}: its content was not fetched (a link to nothing); run `datalad get` on it")
    raise InputError(f"{path}: is a link to nothing ({target} is missing); mend or remove the link")


def cannot_be_opened(error: OSError) -> str:
    """One line about a folder that `files_below` or `matches` could not open."""
    path = Path(str(error.filename))
    try:
        refuse_dangling(path)
    except InputError as dangling:
        return str(dangling)
    return f"{path}: cannot be opened ({error.strerror})"


def _is_annexed(target: str) -> bool:
    return "annex/objects/" in target


def _is_missing_folder(path: Path) -> bool:
    """Whether a link to nothing may have led to a folder: its name has no suffix, and git-annex only links files."""
    return not path.suffix and is_dangling(path) and not _is_annexed(os.readlink(path))


def stars(pattern: str) -> int:
    """How many stars a pattern has.

    >>> stars("sub-*/**/*_T2w.nii.gz")
    3
    """
    return re.compile(regex(pattern)).groups


def regex(pattern: str) -> str:
    """The pattern as a regular expression with a group for each star.

    >>> re.fullmatch(regex("**/*_t2.nii.gz"), "HGG/a_1/a_1_t2.nii.gz").groups()
    ('HGG/a_1/', 'a_1')
    """
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    groups = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    return "".join(groups.get(part) or _bracket(part) or re.escape(part) for part in parts)


def _leading(pattern: str) -> str:
    """A regular expression of the paths, each with a `/` before it, that the pattern matches or can lead through.

    >>> [bool(re.fullmatch(_leading("p*/**/t2.nii"), path)) for path in ("/p1", "/p1/a/b", "/q1")]
    [True, True, False]
    """
    parts = pattern.split("/")
    deep = parts.index("**") if "**" in parts else len(parts)
    found = "(?:/.*)?" if "**" in parts else ""
    for part in reversed(parts[:deep]):
        found = f"(?:/{regex(part)}{found})?"
    return found


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


def _hidden(relative: Path) -> bool:
    return relative.parts[0] == "derivatives" or any(part.startswith(".") for part in relative.parts)
