"""The scans of a data set and their masks, found by file names.

A layout is a pattern for the scans and patterns for the masks, in which `{0}` is the text that the first star of the
scans' pattern matched. With scans at `T1/*_T1.nii.gz` and brain masks at `DLMUSE/{0}_T1_DLMUSE.nii.gz`, the mask of
`T1/IXI049_T1.nii.gz` is `DLMUSE/IXI049_T1_DLMUSE.nii.gz`. `**/` matches any number of folders. Stars in a mask's
pattern must match one file, as `pairing` says. In BIDS, masks are paired by entities (`bids`).
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae import files
from jaxvae.data.missing_files import existing_folder, refuse_dangling
from jaxvae.data.volumes import pairing, patterns, volume_files
from jaxvae.data.volumes.known_datasets import LAYOUTS, Layout, layout_of, pair_masks
from jaxvae.errors import ArgumentError, InputError


class Scan(NamedTuple):
    """One scan, by its files."""

    name: str  # unique in the data set: the relative path without suffix
    patient: str  # the unit of splits and of the bootstrap
    image: Path
    brain: Path | None
    lesion: Path | None


def sources(scan: Scan, *kinds: str) -> dict[str, list[Any] | None]:
    """`files.identity` of a scan's files by kind; None for a missing file."""
    found: dict[str, list[Any] | None] = dict.fromkeys(kinds)
    for kind in kinds:
        if (path := getattr(scan, kind)) is not None:
            with contextlib.suppress(OSError):
                found[kind] = [fact for part in (path, *volume_files.beside(path)) for fact in files.identity(part)]
    return found


class Rejected(NamedTuple):
    """A file that is not used, and why."""

    path: Path
    reason: str


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """Write one line per rejected file: path and reason."""
    files.write_lines(path, [{"path": str(one.path), "reason": one.reason} for one in rejected])


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
    """Find the scans of a folder.

    Args:
      layout: one of `LAYOUTS`; `auto` takes the first that fits, else every volume below the folder, without masks.
      modality: which scan of each patient, as the layout writes it.
      images: a pattern for the scans instead of a layout.
      brains, lesions, patients: patterns that replace the layout's.

    Returns:
      The scans, ordered by name, and the files that are rejected, such as scans without their masks.

    Raises:
      InputError: no such folder or layout, or no scan in it; a pattern uses a star that `images` lacks.
    """
    directory = existing_folder(directory)
    if layout != "auto" and layout not in LAYOUTS:
        raise ArgumentError("layout", layout, f"choose from auto, {', '.join(LAYOUTS)}; or pass `images`")
    if images is not None and layout != "auto":
        raise ArgumentError("layout", layout, "cannot be combined with `images`; pass `brains` and `lesions` instead")
    if images is not None and modality is not None and "{modality}" not in images:
        raise ArgumentError("modality", modality, f"the pattern of `images`, {images}, has no {{modality}}")
    known = Layout("**/*") if images is not None else layout_of(directory, layout, modality)
    known = replace(known, images=images or known.images, brains=brains or known.brains)
    known = replace(known, lesions=lesions or known.lesions, patient=patients or known.patient)
    known = replace(known, images=known.images_of(modality))
    count = patterns.stars(known.images)
    for name, pattern in (("brains", known.brains), ("lesions", known.lesions), ("patients", known.patient)):
        pairing.check(pattern, count, name)
    matches, errors = patterns.matches(directory, known.images)
    brain_masks, lesion_masks = pair_masks(directory, known, matches, needs_brains=brains is not None)
    crowded = max(Counter(path.parent for path, _ in matches).values(), default=0) > 1
    usable, rejected = _usable(matches, errors, brain_masks, lesion_masks)
    found = []
    for path, stars, brain, lesion in usable:
        name = "".join(_folder_and_name(path.relative_to(directory)))
        guess = name if crowded or path.parent == directory else path.parent.relative_to(directory).as_posix()
        patient = guess if known.patient is None else known.patient.format(*stars).strip("/")
        found.append(Scan(name, patient, path, brain, lesion))
    if not matches and not rejected:
        raise InputError(f"{directory}: no volume at {known.images}; pass `layout` or `images`")
    return _unique(found, directory), rejected


def doubts(found: Sequence[Scan], *, patients_given: bool = False) -> list[str]:
    """Guesses and gaps that a reader of the results should know, one line each.

    Args:
      patients_given: the patients were named by the user, not guessed.

    >>> doubts([Scan("a/t1", "a", Path("a/t1.nii"), None, None), Scan("b/t1", "b", Path("b/t1.nii"), None, None)])[0]
    'patients were guessed from the file names (2 found); if that is wrong, pass `patients`'
    """
    lines = []
    guessed = any(scan.patient in (scan.name, str(Path(scan.name).parent)) for scan in found)
    if guessed and len(found) > 1 and not patients_given:
        patients = len({scan.patient for scan in found})
        lines.append(f"patients were guessed from the file names ({patients} found); if that is wrong, pass `patients`")
    without = [scan for scan in found if scan.lesion is None]
    if found and len(without) == len(found):
        lines.append("there are no lesion masks, so all scans count as healthy")
    elif without:
        others = {scan.patient for scan in found if scan.lesion is not None}
        same = sum(scan.patient in others for scan in without)
        lines.append(
            f"{len(without)} of {len(found)} scans have no lesion mask and count as healthy, such as {without[0].name}"
            + (f"; the patients of {same} have a lesion mask for another scan" if same else "")
        )
    without = [scan for scan in found if scan.brain is None]
    if 0 < len(without) < len(found):
        scans = f"{len(without)} of {len(found)} scans"
        lines.append(f"{scans} have no brain mask, such as {without[0].name}; their brains are found in the images")
    return lines + shared(found)


def shared(found: Sequence[Scan]) -> list[str]:
    """One line per kind of mask, if one mask file serves several scans.

    >>> shared([Scan(name, "p", Path(name), None, Path("p_seg.nii")) for name in ("p_t1", "p_t2")])
    ['1 lesion mask serves several scans, such as p_seg.nii for p_t1 and p_t2']
    """
    lines = []
    for kind in ("brain", "lesion"):
        names: dict[Path, list[str]] = defaultdict(list)
        for scan in found:
            if (mask := getattr(scan, kind)) is not None:
                names[mask].append(scan.name)
        several = {mask: scans for mask, scans in names.items() if len(scans) > 1}
        for mask, (first, second, *_) in list(several.items())[:1]:
            serves = "mask serves" if len(several) == 1 else "masks serve"
            example = f"{mask.name} for {first} and {second}"
            lines.append(f"{len(several)} {kind} {serves} several scans, such as {example}")
    return lines


def unlabelled(
    path: str | Path, *, images: str | None = None, brains: str | None = None
) -> tuple[list[Scan], list[Rejected]]:
    """The volumes below a folder, or one volume file, as scans without lesion masks.

    Args:
      images: the pattern of the scans; None takes every volume.
      brains: the pattern of the brain masks, with `{0}`, `{1}` for the stars of `images`. Without `images` they are
        the scan's folder with its slash and its name without suffix: `{0}{1}_brain.nii.gz`. A brain mask among the
        volumes is not a scan.

    Raises:
      InputError: there is no volume; `images` with a single file; a pattern uses a star that `images` lacks.
    """
    path = Path(path)
    refuse_dangling(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if images is not None and not path.is_dir():
        raise ArgumentError("images", images, f"{path} is a file; pass its folder, or leave `images` out")
    directory = path if path.is_dir() else path.parent
    pairing.check(brains, 2 if images is None else patterns.stars(images), "brains")
    if images is None:
        paths, errors = patterns.volumes_below(path) if path.is_dir() else ([path], [])
        matches = [(image, _folder_and_name(image.relative_to(directory))) for image in paths]
    else:
        matches, errors = patterns.matches(directory, images)
    paired = pairing.pair(directory, brains, [path for path, _ in matches], [own for _, own in matches], needed=True)
    # Masks among the volumes are not scans, and need no masks themselves.
    masks = set(paired)
    kept = [i for i, (path, _) in enumerate(matches) if path not in masks]
    usable, rejected = _usable([matches[i] for i in kept], errors, [paired[i] for i in kept])
    names = ["".join(_folder_and_name(path.relative_to(directory))) for path, *_ in usable]
    found = [Scan(name, name, path, brain, None) for name, (path, _, brain) in zip(names, usable, strict=True)]
    if not found and not rejected:
        where = f"at {images}" if images else f"({', '.join(volume_files.SUFFIXES[:3])}, ...) in it or below"
        raise InputError(f"{path}: no volume {where}")
    return _unique(found, directory), rejected


def _folder_and_name(path: Path) -> tuple[str, str]:
    """('a/b/', 't1') for a/b/t1.nii.gz."""
    folder = path.parent.as_posix()
    return "" if folder == "." else f"{folder}/", volume_files.stem(path)


def _unique(found: list[Scan], directory: Path) -> list[Scan]:
    """The scans with unique names: a.nii and a.nii.gz keep their suffixes."""
    counts = Counter(scan.name for scan in found)
    return [
        scan if counts[scan.name] == 1 else scan._replace(name=scan.image.relative_to(directory).as_posix())
        for scan in found
    ]


def _usable(
    matches: Sequence[tuple[Path, tuple[str, ...]]], errors: Sequence[OSError], *masks: Sequence[pairing.Mask]
) -> tuple[list[tuple[Any, ...]], list[Rejected]]:
    """([path, stars, masks] of each scan that can be used, the rejected scans and folders)."""
    usable: list[tuple[Any, ...]] = []
    rejected = [Rejected(Path(error.filename), patterns.cannot_be_opened(error)) for error in errors]
    for (path, stars), *own in zip(matches, *masks, strict=True):
        try:
            usable.append((path, stars, *pairing.checked_masks(path, *own)))
        except InputError as error:
            rejected.append(Rejected(path, str(error)))
    return usable, rejected
