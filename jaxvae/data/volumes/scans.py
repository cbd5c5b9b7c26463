"""The scans of a data set, each with its masks, found by file names alone.

A layout is a pattern for the scans and, made of what its stars stood for, patterns for the masks: with the scans at
`T1/*_T1.nii.gz`, the brain mask of `T1/IXI049_T1.nii.gz` at `DLMUSE/{0}_T1_DLMUSE.nii.gz` is
`DLMUSE/IXI049_T1_DLMUSE.nii.gz`. `**/` stands for any number of folders; the stars of a mask's own pattern must fit
one file, as `pairing` says. In BIDS, masks are paired by entities (`bids`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae import files
from jaxvae.data.volumes import pairing, patterns, volume_files
from jaxvae.data.volumes.known_datasets import LAYOUTS, Layout, layout_of, pair_masks
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
    return {kind: None if path is None else _identity(path) for kind, path in paths.items()}


def _identity(path: Path) -> list[Any] | None:
    """Of all files that a scan is read from; None if one of them is missing or cannot be reached."""
    try:
        return [fact for part in (path, *volume_files.beside(path)) for fact in files.identity(part)]
    except OSError:
        return None


class Rejected(NamedTuple):
    """A file that could not be taken, and why."""

    path: Path
    reason: str


def write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """One line a file that was left out: path and reason."""
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
    patterns.refuse_dangling(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: {'is a file; pass its folder' if directory.exists() else 'no such folder'}")
    if layout != "auto" and layout not in LAYOUTS:
        raise ArgumentError("layout", layout, f"choose from auto, {', '.join(LAYOUTS)}; or give `images` a pattern")
    if images is not None and layout != "auto":
        raise ArgumentError("layout", layout, "does not go with `images`; give `brains` and `lesions` beside it")
    if images is not None and modality is not None and "{modality}" not in images:
        raise ArgumentError("modality", modality, f"`images` {images} has no {{modality}} to put it in")
    known = Layout("**/*") if images is not None else layout_of(directory, layout, modality)
    known = replace(
        known,
        images=replace(known, images=images or known.images).images_of(modality),
        brains=brains or known.brains,
        lesions=lesions or known.lesions,
        patient=patients or known.patient,
    )
    count = patterns.stars(known.images)
    for name, pattern in (("brains", known.brains), ("lesions", known.lesions), ("patients", known.patient)):
        pairing.check(pattern, count, name)
    matches, errors = patterns.matches(directory, known.images)
    brain_masks, lesion_masks = pair_masks(directory, known, matches, needs_brains=brains is not None)
    crowded = max(Counter(path.parent for path, _ in matches).values(), default=0) > 1
    found, rejected = [], _closed(errors)
    for (path, stars), brain, lesion in zip(matches, brain_masks, lesion_masks, strict=True):
        try:
            brain, lesion = pairing.checked_masks(path, brain, lesion)
        except InputError as error:
            rejected.append(Rejected(path, str(error)))
            continue
        name = str(path.relative_to(directory).parent / volume_files.stem(path))
        alone = name if crowded or path.parent == directory else path.parent.relative_to(directory).as_posix()
        patient = alone if known.patient is None else known.patient.format(*stars).strip("/")
        found.append(Scan(name, patient, path, brain, lesion))
    if not matches and not rejected:
        raise InputError(f"{directory}: no volume at {known.images}; say where they are with --layout or --images")
    return _unique(found, directory), rejected


def doubts(found: Sequence[Scan], *, patients_given: bool = False) -> list[str]:
    """One line for each fact about scans that was guessed, or that a reader of the results should know.

    Args:
      patients_given: the caller said whose scan each is.

    >>> doubts([Scan("a/t1", "a", Path("a/t1.nii"), None, None), Scan("b/t1", "b", Path("b/t1.nii"), None, None)])[0]
    'patients were guessed from the file names (2 found); if that is wrong, pass --patients'
    """
    lines = []
    if (
        not patients_given
        and len(found) > 1
        and any(scan.patient in (scan.name, str(Path(scan.name).parent)) for scan in found)
    ):
        patients = len({scan.patient for scan in found})
        lines.append(f"patients were guessed from the file names ({patients} found); if that is wrong, pass --patients")
    without = [scan for scan in found if scan.lesion is None]
    if found and len(without) == len(found):
        lines.append("no lesion masks are known, so all of them count as healthy")
    elif without:
        others = {scan.patient for scan in found if scan.lesion is not None}
        same = sum(scan.patient in others for scan in without)
        lines.append(
            f"{len(without)} of {len(found)} scans count as healthy because no lesion mask has their names, such as "
            f"{without[0].name}" + (f"; the patients of {same} have a lesion mask for another scan" if same else "")
        )
    without = [scan for scan in found if scan.brain is None]
    if 0 < len(without) < len(found):
        lines.append(
            f"the brains of {len(without)} of {len(found)} scans are found in the images because no brain mask has "
            f"their names, such as {without[0].name}"
        )
    return lines + shared(found)


def shared(found: Sequence[Scan]) -> list[str]:
    """One line for each kind of mask of which a file serves several scans.

    >>> shared([Scan(name, "p", Path(name), None, Path("p_seg.nii")) for name in ("p_t1", "p_t2")])
    ['1 lesion mask serves several scans, such as p_seg.nii for p_t1 and p_t2']
    """
    lines = []
    for kind in ("brain", "lesion"):
        names: dict[Path, list[str]] = defaultdict(list)
        for scan in found:
            if (mask := getattr(scan, kind)) is not None:
                names[mask].append(scan.name)
        several = {mask: those for mask, those in names.items() if len(those) > 1}
        for mask, (first, second, *_) in list(several.items())[:1]:
            serves = "mask serves" if len(several) == 1 else "masks serve"
            example = f"{mask.name} for {first} and {second}"
            lines.append(f"{len(several)} {kind} {serves} several scans, such as {example}")
    return lines


def unlabelled(
    path: str | Path, *, images: str | None = None, brains: str | None = None
) -> tuple[list[Scan], list[Rejected]]:
    """Volumes below a folder, or the one that the path names, as scans without known lesions.

    Args:
      images: the pattern of the scans; None takes every volume.
      brains: the pattern of the brain masks, with `{0}`, `{1}` for what the stars of `images` stood for; without
        `images` they are the scan's folder with its slash and its name without suffix: `{0}{1}_brain.nii.gz`. A mask
        among the scans is not taken for one.

    Raises:
      InputError: no volume is there; a pattern of the files below a single one, or that asks for a star that there is
        not.
    """
    path = Path(path)
    patterns.refuse_dangling(path)
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
    paired = pairing.pair(
        directory, brains, [path for path, _ in matches], [stars for _, stars in matches], needed=True
    )
    taken = {mask for mask in paired if isinstance(mask, Path)}
    found, rejected = [], _closed(errors)
    for (image, _), brain in zip(matches, paired, strict=True):
        # A mask among the scans is no scan, and it needs no mask itself.
        if image in taken:
            continue
        try:
            (brain,) = pairing.checked_masks(image, brain)
        except InputError as error:
            rejected.append(Rejected(image, str(error)))
            continue
        name = "".join(_folder_and_name(image.relative_to(directory)))
        found.append(Scan(name, name, image, brain, None))
    if not found and not rejected:
        where = f"at {images}" if images else f"({', '.join(volume_files.SUFFIXES[:3])}, ...) in it or below"
        raise InputError(f"{path}: no volume {where}")
    return _unique(found, directory), rejected


def _folder_and_name(path: Path) -> tuple[str, str]:
    """('a/b/', 't1') of a/b/t1.nii.gz."""
    folder = path.parent.as_posix()
    return "" if folder == "." else f"{folder}/", volume_files.stem(path)


def _unique(found: list[Scan], directory: Path) -> list[Scan]:
    """The scans; those that differ in their suffix only, a.nii and a.nii.gz, are named with it."""
    counts = Counter(scan.name for scan in found)
    return [
        scan if counts[scan.name] == 1 else scan._replace(name=scan.image.relative_to(directory).as_posix())
        for scan in found
    ]


def _closed(errors: Sequence[OSError]) -> list[Rejected]:
    """Folders that cannot be opened, whose scans are not known."""
    return [Rejected(Path(error.filename), patterns.cannot_be_opened(error)) for error in errors]
