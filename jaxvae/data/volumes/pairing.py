"""Masks of scans, found by patterns.

In a pattern, `{0}` and `{1}` are what the stars of the scans' pattern matched. Each mask belongs to one scan:

- A star beside `{0}` does not continue a name (`mask_patterns`).
- A mask that fits several scans belongs to the scan with the longest name. With scans `a` and `a_post`,
  `a_post_mask.nii` is the mask of `a_post`. A star of `a` never finds it.
- A pattern that gives several scans the same text gives them the same mask (`scans.shared` reports it).
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from jaxvae.data.missing_files import refuse_dangling
from jaxvae.data.volumes.mask_patterns import Part, Prefix, files_at, parts_of, prefix_of
from jaxvae.errors import ArgumentError, InputError

Mask = Path | InputError | None  # the mask of a scan, why its mask cannot be used, or None


def check(pattern: str | None, stars: int, name: str) -> None:
    """Check a pattern of masks.

    Args:
      stars: the number of stars in the pattern of `images`.
      name: the argument that holds the pattern.

    Raises:
      InputError: the pattern uses a star that `images` lacks, or is malformed.
    """
    try:
        (pattern or "").format(*[""] * stars)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        known = f"can use {{0}} to {{{stars - 1}}}, one for each star of `images`" if stars else "`images` has no star"
        raise ArgumentError(name, pattern, known) from error


def pair(
    directory: Path, pattern: str | None, images: Sequence[Path], stars: Sequence[tuple[str, ...]], *, needed: bool
) -> list[Mask]:
    """The mask of each scan by a pattern.

    Args:
      images: the scans. A scan is never its own mask.
      stars: for each scan, what the stars of its pattern matched.
      needed: a scan without a mask gets an InputError instead of None.
    """
    if pattern is None:
        return [None] * len(images)
    base = Path("/") if pattern.startswith("/") else directory
    parts = [parts_of(pattern.lstrip("/"), own) for own in stars]
    wanted = [pattern.format(*own) for own in stars]
    claimed = [_claimed(base, own, image) for own, image in zip(parts, images, strict=True)]
    claimed = _without_others(base, claimed, [prefix_of(own) for own in parts], images)
    owners: dict[Path, set[str]] = {}
    for own, paths in zip(wanted, claimed, strict=True):
        for path in [] if isinstance(paths, InputError) else paths:
            owners.setdefault(path, set()).add(own)
    return [
        paths if isinstance(paths, InputError) else _one(own, paths, owners, needed)
        for own, paths in zip(wanted, claimed, strict=True)
    ]


def _claimed(base: Path, parts: list[Part], image: Path) -> list[Path] | InputError:
    """The files that match a scan's pattern, or why they cannot be listed."""
    try:
        return [path for path in files_at(base, parts) if path != image]
    except InputError as error:
        return error


def _without_others(
    base: Path, claimed: list[list[Path] | InputError], prefixes: list[Prefix], images: Sequence[Path]
) -> list[list[Path] | InputError]:
    """The files of each scan, without files that start with the longer name of another scan."""
    owners: dict[str, list[int]] = {}
    for i, prefix in enumerate(prefixes):
        if prefix.text:
            owners.setdefault(prefix.text, []).append(i)
    names = sorted(owners)

    def is_anothers(path: Path, own: str) -> bool:
        place = path.relative_to(base).as_posix()
        longer = takewhile(lambda name: name.startswith(own), names[bisect_right(names, own) :])
        return any(
            re.match(prefixes[owners[name][0]].regex, place) and any(images[i] != path for i in owners[name])
            for name in longer
        )

    return [
        paths
        if isinstance(paths, InputError) or not prefix.text
        else [path for path in paths if not is_anothers(path, prefix.text)]
        for paths, prefix in zip(claimed, prefixes, strict=True)
    ]


def _one(wanted: str, claimed: list[Path], owners: dict[Path, set[str]], needed: bool) -> Mask:
    """The one mask among the files that match a scan's pattern."""
    longest = {path: max(map(len, owners[path])) for path in claimed}
    paths = [path for path in claimed if len(wanted) == longest[path]]
    if len(paths) > 1:
        return InputError(f"{len(paths)} masks at {wanted}, such as {paths[0].name}; change the pattern to match one")
    if paths:
        if others := sorted(own for own in owners[paths[0]] if len(own) == len(wanted) and own != wanted):
            places = f"at {wanted} and at {others[0]}"
            return InputError(f"{paths[0].name} is {places}; change the pattern to match one scan")
        return fetched_mask(paths[0])
    if needed:
        other = f" ({claimed[0].name} belongs to another scan)" if claimed else ""
        return InputError(f"its mask {wanted} is missing{other}")
    return None


def fetched_mask(path: Path) -> Path | InputError:
    """The mask, or an InputError if it is a broken link."""
    try:
        refuse_dangling(path)
    except InputError as error:
        return InputError(f"its mask {error}")
    return path


def checked_masks(image: Path, *masks: Mask) -> tuple[Path | None, ...]:
    """The masks of a scan. Raises InputError for broken links and bad masks."""
    refuse_dangling(image)
    for mask in masks:
        if isinstance(mask, InputError):
            raise InputError(f"{image}: {mask}") from mask
    return tuple(mask for mask in masks if not isinstance(mask, InputError))
