"""Where the scans of a data set lie, each with its masks, read from names alone.

A layout is a pattern for the scans and, made of what its stars stood for, patterns for the masks: with the scans at
`T1/*_T1.nii.gz`, the brain mask of `T1/IXI049_T1.nii.gz` at `DLMUSE/{0}_T1_DLMUSE.nii.gz` is
`DLMUSE/IXI049_T1_DLMUSE.nii.gz`. `**/` stands for any number of folders; the stars of a mask's own pattern have to fit
one file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae.data import volumes
from jaxvae.errors import InputError


class Scan(NamedTuple):
    """One scan before it is read."""

    name: str  # unique within the data set, a relative path without suffix
    patient: str  # what a split keeps together and a bootstrap resamples
    image: Path
    brain: Path | None
    lesion: Path | None


def sources(scan: Scan, *kinds: str) -> dict[str, list[Any] | None]:
    """What tells a scan's files from others: place, size and time of the last change; None for one that is not there.

    The place is the file's own, however it was named and through whatever links.

    Args:
      kinds: which files, "image", "brain" or "lesion".
    """
    paths = {kind: getattr(scan, kind) for kind in kinds}
    return {
        kind: [os.path.realpath(path), path.stat().st_size, path.stat().st_mtime_ns] if path and path.exists() else None
        for kind, path in paths.items()
    }


class Rejected(NamedTuple):
    """A file that could not be taken, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Layout:
    """Patterns relative to the folder of the data set.

    Args:
      images: of the scans; may hold `{modality}`.
      brains, lesions: of the masks, with `{0}`, `{1}` for what the stars of `images` stood for; None: there are none.
      patient: the patient's name made of the same; None: the folder that holds the scan where no folder holds two of
        them, else the scan's own name.
      modality: the default of `{modality}`.
      needs_lesions: a scan whose lesion mask is missing is left out, not taken for healthy.
    """

    images: str
    brains: str | None = None
    lesions: str | None = None
    patient: str | None = None
    modality: str = ""
    needs_lesions: bool = True


LAYOUTS = {
    "hcp": Layout("*/T1w/{modality}_acpc_dc_restore_brain.nii.gz", patient="{0}", modality="T2w"),
    "brats2017": Layout("**/*_{modality}.nii.gz", None, "{0}{1}_seg.nii.gz", "{1}", "t2"),
    "isles2015": Layout(
        "**/VSD.Brain.*.MR_{modality}.*/VSD.Brain.*.MR_{modality}.*.nii",
        None,
        "{0}VSD.Brain.*OT.*/VSD.Brain.*OT.*.nii",
        "{0}",
        "T2",
    ),
    "bids": Layout(
        "sub-*/**/sub-*_{modality}.nii.gz",
        "derivatives/*/sub-{0}/{1}sub-{2}*desc-brain*_mask.nii.gz",
        "derivatives/*/sub-{0}/{1}sub-{2}*label-[Ll]*_mask.nii.gz",
        "{0}",
        "T2w",
        needs_lesions=False,
    ),
    "ixi": Layout("**/IXI*[-_]{modality}.nii.gz", patient="IXI{1}", modality="T1"),
}


def find(
    directory: str | Path,
    layout: str = "auto",
    *,
    modality: str | None = None,
    images: str | None = None,
    brains: str | None = None,
    lesions: str | None = None,
    patients: str | None = None,
) -> tuple[list[Scan], list[Rejected]]:
    """The scans of a folder, ordered by name, and those whose masks are not where they should be.

    Args:
      layout: one of `LAYOUTS`; `auto` takes the first that fits, else every volume below the folder, without masks.
      modality: which of a patient's scans, as the layout writes it.
      images: a pattern of one's own, instead of a layout.
      brains, lesions, patients: patterns instead of the layout's.
    Raises:
      InputError: no such folder or layout, or no scan in it; a pattern that asks for a star that there is not.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: {'is a file; pass its folder' if directory.exists() else 'no such folder'}")
    if layout != "auto" and layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: choose from auto, {', '.join(LAYOUTS)}; or give --images a pattern")
    if images is not None and layout != "auto":
        raise InputError(
            f"--layout {layout}: does not go with --images; give --brains and --lesions patterns beside it"
        )
    if images is not None and modality is not None and "{modality}" not in images:
        raise InputError(f"--modality {modality}: --images {images} has no {{modality}} to put it in")
    known = Layout("**/*") if images is not None else _layout(directory, layout, modality)
    known = replace(
        known,
        images=(images or known.images).replace("{modality}", modality or known.modality),
        brains=brains or known.brains,
        lesions=lesions or known.lesions,
        patient=patients or known.patient,
    )
    stars = re.compile(_regex(known.images)).groups
    for flag, pattern in (("brains", known.brains), ("lesions", known.lesions), ("patients", known.patient)):
        _check(pattern, stars, f"--{flag}")
    matches, rejected = _matches(directory, known.images)
    crowded = max(Counter(path.parent for path, _ in matches).values(), default=0) > 1
    found = []
    for path, stars in matches:
        name = str(path.relative_to(directory).parent / volumes.stem(path))
        try:
            brain = _mask(directory, known.brains, stars, needed=brains is not None)
            lesion = _mask(directory, known.lesions, stars, needed=known.needs_lesions)
        except InputError as error:
            rejected.append(Rejected(path, f"{path}: {error}"))
            continue
        alone = name if crowded or path.parent == directory else path.parent.relative_to(directory).as_posix()
        patient = alone if known.patient is None else known.patient.format(*stars).strip("/")
        found.append(Scan(name, patient, path, brain, lesion))
    if not found and not rejected:
        raise InputError(f"{directory}: no volume at {known.images}; say where they lie with --layout or --images")
    return _unique(found, directory), rejected


def doubts(found: Sequence[Scan]) -> list[str]:
    """What nobody said about scans and was guessed, a line each.

    >>> doubts([Scan("a/t1", "a", Path("a/t1.nii"), None, None), Scan("b/t1", "b", Path("b/t1.nii"), None, None)])[0]
    'who is a patient was guessed from the names; where 2 are too many, say whose scan it is with --patients'
    """
    lines = []
    if len(found) > 1 and any(scan.patient in (scan.name, str(Path(scan.name).parent)) for scan in found):
        patients = len({scan.patient for scan in found})
        lines.append(
            f"who is a patient was guessed from the names; where {patients} are too many, "
            "say whose scan it is with --patients"
        )
    if all(scan.lesion is None for scan in found):
        lines.append("no lesion masks are known, so all of them count as healthy")
    return lines


def unlabelled(path: str | Path, *, brains: str | None = None) -> tuple[list[Scan], list[Rejected]]:
    """Every volume below a folder, or the one that the path names, as scans without known lesions.

    Args:
      brains: the pattern of the brain masks, where `{0}` is the scan's folder with its slash and `{1}` its name without
        suffix, such as `{0}{1}_brain.nii.gz`. A mask that lies among the scans is not taken for one.

    Raises:
      InputError: no volume is there.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    directory = path if path.is_dir() else path.parent
    _check(brains, 2, "--brains")
    paths, rejected = _volumes_below(path) if path.is_dir() else ([path], [])
    found, masks = [], set()
    for image in paths:
        folder = str(image.relative_to(directory).parent)
        stars = ("" if folder == "." else f"{folder}/", volumes.stem(image))
        try:
            brain = _mask(directory, brains, stars, needed=True)
        except InputError as error:
            rejected.append(Rejected(image, f"{image}: {error}"))
            continue
        masks |= {brain} if brain else set()
        found.append(Scan("".join(stars), "".join(stars), image, brain, None))
    # A mask that lies among the scans is no scan, and no mask was missed for it.
    found = [scan for scan in found if scan.image not in masks]
    rejected = [one for one in rejected if one.path not in masks]
    if not found and not rejected:
        raise InputError(f"{path}: no volume ({', '.join(volumes.SUFFIXES[:3])}, ...) in it or below")
    return _unique(found, directory), rejected


def _unique(found: list[Scan], directory: Path) -> list[Scan]:
    """The scans; those that differ in their suffix only, a.nii and a.nii.gz, are named with it."""
    counts = Counter(scan.name for scan in found)
    return [
        scan if counts[scan.name] == 1 else scan._replace(name=scan.image.relative_to(directory).as_posix())
        for scan in found
    ]


def _layout(directory: Path, layout: str, modality: str | None) -> Layout:
    for name in LAYOUTS if layout == "auto" else [layout]:
        known = LAYOUTS[name]
        if layout == name or _matches(directory, known.images.replace("{modality}", modality or known.modality))[0]:
            return known
    if modality is not None:
        raise InputError(
            f"--modality {modality}: none of the layouts {', '.join(LAYOUTS)} has such scans in {directory}; say where "
            "they lie with --images"
        )
    return Layout("**/*")


def _matches(directory: Path, pattern: str) -> tuple[list[tuple[Path, tuple[str, ...]]], list[Rejected]]:
    """The visible volumes at a pattern, with what each of its stars stands for; and folders that cannot be opened."""
    regex = re.compile(_regex(pattern))
    if "**/" in pattern:
        paths, rejected = _volumes_below(directory)
    else:
        paths, rejected = sorted(path for path in _glob(directory, pattern) if _visible(path, directory)), []
    matches = [(path, regex.fullmatch(path.relative_to(directory).as_posix())) for path in paths]
    return [(path, match.groups()) for path, match in matches if match], rejected


def _volumes_below(directory: Path) -> tuple[list[Path], list[Rejected]]:
    """The visible volumes anywhere below a folder, in order, and the folders on the way that cannot be opened.

    Folders that are links are followed, which `Path.glob` does not; each folder is looked into once.
    """
    paths: list[Path] = []
    rejected: list[Rejected] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        rejected.append(Rejected(Path(error.filename), f"{error.filename}: cannot be opened ({error.strerror})"))

    for root, folders, names in os.walk(directory, followlinks=True, onerror=refuse):
        place = os.stat(root)
        # Nothing below these is visible, and there may be much of it.
        folders[:] = sorted(name for name in folders if not _hidden(Path(root, name).relative_to(directory)))
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        paths += (path for path in (Path(root, name) for name in names) if _visible(path, directory))
    return sorted(paths), rejected


def _regex(pattern: str) -> str:
    """The pattern as a regular expression with a group a star.

    >>> re.fullmatch(_regex("**/*_t2.nii.gz"), "HGG/a_1/a_1_t2.nii.gz").groups()
    ('HGG/a_1/', 'a_1')
    """
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    stars = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    return "".join(
        stars.get(part, part.replace("[!", "[^", 1) if part.startswith("[") else re.escape(part)) for part in parts
    )


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


def _check(pattern: str | None, stars: int, flag: str) -> None:
    try:
        (pattern or "").format(*[""] * stars)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        known = f"takes {{0}} to {{{stars - 1}}}, one for each star of --images" if stars else "--images has no star"
        raise InputError(f"{flag} {pattern}: {known}") from error


def _mask(directory: Path, pattern: str | None, stars: tuple[str, ...], *, needed: bool) -> Path | None:
    """The one file at a mask's pattern; None if there is no pattern, or no file and none is needed."""
    if pattern is None:
        return None
    # What a star stood for is taken as it is: a bracket in a folder's name chooses nothing.
    wanted = pattern.format(*(re.sub(r"([*?[])", r"[\1]", star) for star in stars))
    paths = [path for path in _glob(directory, wanted) if path.is_file()]
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise InputError(f"{len(paths)} masks at {wanted}, such as {paths[0].name}; make the pattern fit one")
    if needed:
        raise InputError(f"its mask {wanted} is missing")
    return None
