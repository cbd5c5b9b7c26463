"""Patterns of masks, filled with a scan's text: what its stars matched.

A star beside the scan's text does not continue a name. For the scan `run-1`, `{0}*_mask.nii` matches `run-1_mask.nii`
and `run-1_left_mask.nii`, but not `run-10_mask.nii`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from jaxvae.data.missing_files import is_dangling
from jaxvae.data.volumes import patterns
from jaxvae.errors import InputError

# One part of a path, between slashes: pieces of text, each with True for the scan's text and False for the pattern's.
Part = list[tuple[str, bool]]
_ANY_FOLDERS: Part = [("**", False)]


class Prefix(NamedTuple):
    """The beginning of a mask's path, up to the scan's text."""

    text: str
    regex: str


def parts_of(pattern: str, stars: tuple[str, ...]) -> list[Part]:
    """The parts of a mask's pattern, between slashes, filled with a scan's stars."""
    parts: list[Part] = [[]]
    for literal, field, spec, conversion in Formatter().parse(pattern):
        own = ""
        if field is not None:
            own = f"{{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}".format(*stars)
        for text, is_own in ((literal, False), (own, True)):
            first, *others = text.split("/")
            parts[-1].append((first, is_own))
            parts += [[(other, is_own)] for other in others]
    return [[piece for piece in part if piece[0]] for part in parts]


def files_at(folder: Path, parts: list[Part]) -> Iterator[Path]:
    """The files below a folder that match a path, including broken links."""
    if is_dangling(folder) or (not parts and os.path.isfile(folder)):
        yield folder
        return
    if not parts:
        return
    part, rest = parts[0], parts[1:]
    if part == _ANY_FOLDERS:
        yield from files_at(folder, rest)
        for name in sorted(_names(folder)):
            below = folder / name
            if not name.startswith(".") and below.is_dir() and not below.is_symlink():
                yield from files_at(below, parts)
    elif any(_is_wild(piece) for piece in part):
        fits, first = re.compile(_part_regex(part)), "" if _is_wild(part[0]) else part[0][0]
        names = [name for name in _names(folder) if name.startswith(first) and fits.fullmatch(name)]
        for name in sorted(names):
            if part[0][0].startswith(".") or not name.startswith("."):
                yield from files_at(folder / name, rest)
    else:
        yield from files_at(folder / "".join(text for text, _ in part), rest)


def _is_wild(piece: tuple[str, bool]) -> bool:
    text, is_own = piece
    return not is_own and re.search(r"[*?[]", text) is not None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(patterns.cannot_be_opened(error)) from error


def prefix_of(parts: list[Part]) -> Prefix:
    """A path up to the scan's text before the last wildcard; empty if there is none."""
    wild = [i for i, part in enumerate(parts) if any(_is_wild(piece) for piece in part)]
    ends = [
        (i, j)
        for i, part in enumerate(parts)
        for j, (_, is_own) in enumerate(part)
        if is_own and (any(k > i for k in wild) or any(_is_wild(piece) for piece in part[j:]))
    ]
    if not ends:
        return Prefix("", "")
    i, j = ends[-1]
    before, last = parts[:i], parts[i][: j + 1]
    text = "/".join("".join(piece for piece, _ in part) for part in (*before, last))
    folders = ["(?:[^/]+/)*" if part == _ANY_FOLDERS else f"{_part_regex(part)}/" for part in before]
    return Prefix(text, "".join(folders) + _part_regex(last) + (r"(?![^\W_])" if text[-1].isalnum() else ""))


def _part_regex(part: Part) -> str:
    """A regular expression for one part of a path, in which no star continues the scan's text.

    >>> expression = _part_regex([("run-1", True), ("*_mask.nii", False)])
    >>> names = ("run-1_mask.nii", "run-1_left_mask.nii", "run-10_mask.nii")
    >>> [bool(re.fullmatch(expression, name)) for name in names]
    [True, True, False]
    """
    found = ""
    for i, (text, is_own) in enumerate(part):
        if is_own:
            found += re.escape(text)
            continue
        before = part[i - 1][0] if i and part[i - 1][1] else ""
        after = part[i + 1][0] if i + 1 < len(part) and part[i + 1][1] else ""
        if text == "*":
            found += _star(before, after)
            continue
        first = _star(before, "") if text.startswith("*") else ""
        last = _star("", after) if text.endswith("*") else ""
        found += first + patterns.regex(text[bool(first) : len(text) - bool(last)]) + last
    return found


def _star(before: str, after: str) -> str:
    """A star between two texts of the scan: empty, or separated from both, as by `_`.

    A letter before a number separates too: `*{0}` matches `p1` for the scan `1`, but not `11`.
    """
    ahead = r"(?=[\W_])" if before[-1:].isalnum() else ""
    behind = "" if not after[:1].isalnum() else r"(?<=\D)" if after[0].isdigit() else r"(?<=[\W_])"
    return f"(?:|{ahead}[^/]*{behind})"
