"""Volumes below a folder by patterns with stars.

`*` matches part of a name and `**/` any number of folders. Hidden files and files below `derivatives` are ignored.
Broken links are found, so that the reader of the file can report them as missing.
"""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from jaxvae.data.missing_files import is_annexed, is_dangling, refuse_dangling
from jaxvae.data.volumes import volume_files
from jaxvae.errors import InputError


def matches(directory: Path, pattern: str) -> tuple[list[tuple[Path, tuple[str, ...]]], list[OSError]]:
    """The volumes at a pattern, with the texts of its stars, and errors.

    Raises:
      InputError: the pattern leads out of the folder.
    """
    if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise InputError(f"{pattern!r}: must match files below {directory}; leave out '..' and the first '/'")
    leads = re.compile(_leading(pattern))

    def hidden(path: Path) -> bool:
        relative = path.relative_to(directory)
        return _hidden(relative) or not leads.fullmatch(f"/{relative.as_posix()}")

    paths, errors = volumes_below(directory, hidden)
    whole = re.compile(regex(pattern))
    found = [(path, whole.fullmatch(path.relative_to(directory).as_posix())) for path in paths]
    return [(path, match.groups()) for path, match in found if match], errors


def volumes_below(directory: Path, hidden: Callable[[Path], bool] | None = None) -> tuple[list[Path], list[OSError]]:
    """The volumes below a folder, in order, including broken links.

    Args:
      hidden: tells which files and folders are skipped; None skips hidden ones and everything below `derivatives`.

    Returns:
      The volumes, and an error for each folder that cannot be opened or is a broken link.
    """
    paths, errors = files_below(directory, hidden or (lambda path: _hidden(path.relative_to(directory))))
    # A broken link can be a folder's if its name has no suffix. git-annex only links files.
    links = (path for path in paths if not path.suffix and is_dangling(path) and not is_annexed(path))
    errors += [FileNotFoundError(errno.ENOENT, "a broken link", str(path)) for path in links]
    return [path for path in paths if volume_files.is_volume(path)], errors


def files_below(directory: Path, hidden: Callable[[Path], bool]) -> tuple[list[Path], list[OSError]]:
    """All files below a folder, and an error per folder that cannot be opened.

    Links to folders are followed, unlike in `Path.glob`; each folder is read once. Broken links are included,
    because a file that was not fetched must be reported.
    """
    paths: list[Path] = []
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(directory, followlinks=True, onerror=errors.append):
        place = os.stat(root)
        # Hidden folders can be large, so they are not even listed.
        folders[:] = sorted(name for name in folders if not hidden(Path(root, name)))
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        below = (Path(root, name) for name in names)
        paths += (path for path in below if not hidden(path) and (os.path.isfile(path) or is_dangling(path)))
    return sorted(paths), errors


def cannot_be_opened(error: OSError) -> str:
    """The error message for a folder that `files_below` or `matches` could not open."""
    path = Path(str(error.filename))
    try:
        refuse_dangling(path)
    except InputError as dangling:
        return str(dangling)
    return f"{path}: cannot be opened ({error.strerror})"


def stars(pattern: str) -> int:
    """The number of stars in a pattern.

    >>> stars("sub-*/**/*_T2w.nii.gz")
    3
    """
    return re.compile(regex(pattern)).groups


def regex(pattern: str) -> str:
    """The pattern as a regular expression with a group per star.

    >>> re.fullmatch(regex("**/*_t2.nii.gz"), "HGG/a_1/a_1_t2.nii.gz").groups()
    ('HGG/a_1/', 'a_1')
    """
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    groups = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    return "".join(groups.get(part) or _bracket(part) or re.escape(part) for part in parts)


def _leading(pattern: str) -> str:
    """A regular expression for the paths, preceded by `/`, that the pattern matches or that lead to matches.

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
    """`[a-c]` or `[!a-c]` as a regular expression; None for other text."""
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
