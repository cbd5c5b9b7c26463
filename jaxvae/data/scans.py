"""Where the scans of a data set lie, each with its masks, read from names alone.

A layout is a pattern for the scans and, made of what its stars stood for, patterns for the masks: with the scans at
`T1/*_T1.nii.gz`, the brain mask of `T1/IXI049_T1.nii.gz` at `DLMUSE/{0}_T1_DLMUSE.nii.gz` is
`DLMUSE/IXI049_T1_DLMUSE.nii.gz`. `**/` stands for any number of folders; the stars of a mask's own pattern have to fit
one file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae import files
from jaxvae.data import patterns, volumes
from jaxvae.errors import ArgumentError, InputError


class Scan(NamedTuple):
    """One scan before it is read."""

    name: str  # unique within the data set, a relative path without suffix
    patient: str  # what a split keeps together and a bootstrap resamples
    image: Path
    brain: Path | None
    lesion: Path | None


def sources(scan: Scan, *kinds: str) -> dict[str, list[Any] | None]:
    """What tells a scan's files from others, `files.identity`; None for one that is not there.

    Args:
      kinds: which files, "image", "brain" or "lesion".
    """
    paths = {kind: getattr(scan, kind) for kind in kinds}
    return {kind: _identity(path) if path and path.exists() else None for kind, path in paths.items()}


def _identity(path: Path) -> list[Any]:
    """Of all files that a scan is read from."""
    return [fact for part in (path, *volumes.beside(path)) for fact in files.identity(part)]


class Rejected(NamedTuple):
    """A file that could not be taken, and why."""

    path: Path
    reason: str


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """One line a file that was left out: path and reason."""
    files.write_lines(path, [{"path": str(one.path), "reason": one.reason} for one in rejected])


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
        raise ArgumentError("layout", layout, f"choose from auto, {', '.join(LAYOUTS)}; or give `images` a pattern")
    if images is not None and layout != "auto":
        raise ArgumentError("layout", layout, "does not go with `images`; give `brains` and `lesions` beside it")
    if images is not None and modality is not None and "{modality}" not in images:
        raise ArgumentError("modality", modality, f"`images` {images} has no {{modality}} to put it in")
    known = Layout("**/*") if images is not None else _layout(directory, layout, modality)
    known = replace(
        known,
        images=(images or known.images).replace("{modality}", modality or known.modality),
        brains=brains or known.brains,
        lesions=lesions or known.lesions,
        patient=patients or known.patient,
    )
    stars = patterns.stars(known.images)
    for name, pattern in (("brains", known.brains), ("lesions", known.lesions), ("patients", known.patient)):
        patterns.check(pattern, stars, name)
    matches, errors = patterns.matches(directory, known.images)
    crowded = max(Counter(path.parent for path, _ in matches).values(), default=0) > 1
    found, rejected = [], _closed(errors)
    for path, stars in matches:
        name = str(path.relative_to(directory).parent / volumes.stem(path))
        try:
            brain = patterns.one_file(directory, known.brains, stars, needed=brains is not None)
            lesion = patterns.one_file(directory, known.lesions, stars, needed=known.needs_lesions)
        except InputError as error:
            rejected.append(Rejected(path, f"{path}: {error}"))
            continue
        alone = name if crowded or path.parent == directory else path.parent.relative_to(directory).as_posix()
        patient = alone if known.patient is None else known.patient.format(*stars).strip("/")
        found.append(Scan(name, patient, path, brain, lesion))
    if not found and not rejected:
        raise InputError(f"{directory}: no volume at {known.images}; say where they lie with --layout or --images")
    return _unique(found, directory), rejected


def doubts(found: Sequence[Scan], *, patients_given: bool = False) -> list[str]:
    """What nobody said about scans and was guessed, a line each.

    Args:
      patients_given: it was said whose scan each is.

    >>> doubts([Scan("a/t1", "a", Path("a/t1.nii"), None, None), Scan("b/t1", "b", Path("b/t1.nii"), None, None)])[0]
    'who is a patient was guessed from the names; where 2 are too many, say whose scan it is with --patients'
    """
    lines = []
    if (
        not patients_given
        and len(found) > 1
        and any(scan.patient in (scan.name, str(Path(scan.name).parent)) for scan in found)
    ):
        patients = len({scan.patient for scan in found})
        lines.append(
            f"who is a patient was guessed from the names; where {patients} are too many, "
            "say whose scan it is with --patients"
        )
    if all(scan.lesion is None for scan in found):
        lines.append("no lesion masks are known, so all of them count as healthy")
    return lines


def unlabelled(
    path: str | Path, *, images: str | None = None, brains: str | None = None
) -> tuple[list[Scan], list[Rejected]]:
    """Volumes below a folder, or the one that the path names, as scans without known lesions.

    Args:
      images: the pattern of the scans; None takes every volume.
      brains: the pattern of the brain masks, with `{0}`, `{1}` for what the stars of `images` stood for; without
        `images` they are the scan's folder with its slash and its name without suffix: `{0}{1}_brain.nii.gz`. A mask
        that lies among the scans is not taken for one.
    Raises:
      InputError: no volume is there; a pattern of the files below a single one, or that asks for a star that there is
        not.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if images is not None and not path.is_dir():
        raise ArgumentError("images", images, f"{path} is a file; pass its folder, or leave `images` out")
    directory = path if path.is_dir() else path.parent
    patterns.check(brains, 2 if images is None else patterns.stars(images), "brains")
    if images is None:
        paths, errors = patterns.volumes_below(path) if path.is_dir() else ([path], [])
        matches = [(image, _folder_and_name(image.relative_to(directory))) for image in paths]
    else:
        matches, errors = patterns.matches(directory, images)
    found, masks, rejected = [], set(), _closed(errors)
    for image, stars in matches:
        try:
            brain = patterns.one_file(directory, brains, stars, needed=True)
        except InputError as error:
            rejected.append(Rejected(image, f"{image}: {error}"))
            continue
        masks |= {brain} if brain else set()
        name = "".join(_folder_and_name(image.relative_to(directory)))
        found.append(Scan(name, name, image, brain, None))
    # A mask that lies among the scans is no scan, and no mask was missed for it.
    found = [scan for scan in found if scan.image not in masks]
    rejected = [one for one in rejected if one.path not in masks]
    if not found and not rejected:
        where = f"at {images}" if images else f"({', '.join(volumes.SUFFIXES[:3])}, ...) in it or below"
        raise InputError(f"{path}: no volume {where}")
    return _unique(found, directory), rejected


def _folder_and_name(path: Path) -> tuple[str, str]:
    """('a/b/', 't1') of a/b/t1.nii.gz."""
    folder = path.parent.as_posix()
    return "" if folder == "." else f"{folder}/", volumes.stem(path)


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
        if (
            layout == name
            or patterns.matches(directory, known.images.replace("{modality}", modality or known.modality))[0]
        ):
            return known
    if modality is not None:
        there = f"none of the layouts {', '.join(LAYOUTS)} has such scans in {directory}"
        raise ArgumentError("modality", modality, f"{there}; say where they lie with `images`")
    return Layout("**/*")


def _closed(errors: Sequence[OSError]) -> list[Rejected]:
    """Folders that cannot be opened, of which nobody knows what scans they hold."""
    return [
        Rejected(Path(error.filename), f"{error.filename}: cannot be opened ({error.strerror})") for error in errors
    ]
