"""Masks of scans in a BIDS folder, paired by the entities in their names.

A name such as `sub-01_run-2_label-lesion_mask.nii.gz` is a list of entities and a suffix. A mask belongs to the scan
with the same entities. It may add entities that describe a derivative (`space`, `res`, `den`, `label`, `desc`, ...):
the mask above belongs to `sub-01_run-2_T2w`, not to `sub-01_T2w` or `sub-01_run-20_T2w`. Indices are compared as
numbers (`run-1` is `run-01`), all other values as text. Masks are found below `derivatives` and beside the scans.
https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxvae.data.volumes import patterns, volume_files
from jaxvae.data.volumes.pairing import Mask, fetched_mask
from jaxvae.errors import InputError

INDICES = {"run", "echo", "flip", "inv", "split", "chunk"}
OF_DERIVATIVES = {"space", "cohort", "res", "den", "label", "desc", "seg"}
GRID = ("res", "den")  # A mask with another value of one of these was resampled.


class Name(NamedTuple):
    """The parsed name of a file."""

    path: Path
    source: frozenset[tuple[str, str]]  # the entities of the scan itself
    derived: dict[str, str]  # the entities of a derivative
    suffix: str


class Masks(NamedTuple):
    """All masks of a folder."""

    brains: list[Name]
    lesions: list[Name]
    errors: list[OSError]  # for folders that may hold masks and cannot be opened


def parse(path: Path, of: str = "") -> Name:
    """The entities and the suffix of a file's name.

    Args:
      of: the suffix of the scans, which older derivatives keep: `sub-01_T1w_label-lesion_roi`.

    >>> name = parse(Path("sub-01_run-02_desc-brain_mask.nii.gz"))
    >>> sorted(name.source), name.derived, name.suffix
    ([('run', '2'), ('sub', '01')], {'desc': 'brain'}, 'mask')
    """
    *parts, suffix = volume_files.stem(path).split("_")
    source, derived = [], {}
    for part in parts:
        key, dash, value = part.partition("-")
        if dash and key in OF_DERIVATIVES:
            derived[key] = value
        elif part != of:
            source.append((key, str(int(value)) if key in INDICES and value.isdecimal() else value))
    return Name(path, frozenset(source), derived, suffix)


def masks_below(directory: Path, suffix: str) -> Masks:
    """All masks below `derivatives` and beside the scans."""

    def hidden(path: Path) -> bool:
        parts = path.relative_to(directory).parts
        can_hold_masks = parts[0] == "derivatives" or parts[0].startswith("sub-")
        return not can_hold_masks or any(part.startswith(".") for part in parts)

    paths, errors = patterns.volumes_below(directory, hidden)
    names = [parse(path, suffix) for path in paths]
    names = [name for name in names if name.suffix in ("mask", "roi")]
    return Masks(
        [name for name in names if _kind(name) == "brain"],
        [name for name in names if _kind(name) == "lesion"],
        [error for error in errors if Path(error.filename).relative_to(directory).parts[0] == "derivatives"],
    )


def _kind(name: Name) -> Literal["brain", "lesion"] | None:
    """Whether a mask is one of a brain or of a lesion. `L` is the BIDS label of lesions."""
    label, desc = name.derived.get("label", ""), name.derived.get("desc", "").lower()
    lesions = ("lesion", "tumor", "tumour")
    if label in ("L", "l") or label.lower().startswith(lesions) or (not label and desc.startswith(lesions)):
        return "lesion"
    return "brain" if desc in ("brain", "brainmask") and not label else None


def pair(directory: Path, images: Sequence[Path], known: Masks, kind: Literal["brain", "lesion"]) -> list[Mask]:
    """The mask of each scan.

    A scan gets an InputError instead of a mask if its mask is uncertain: several masks fit, one mask fits several
    scans, its lesion mask is in another space, a lesion mask of its session has the entities of no scan, or masks may
    be in a folder that cannot be opened.
    """
    names = [parse(image) for image in images]
    masks: dict[frozenset[tuple[str, str]], list[Name]] = defaultdict(list)
    for name in known.brains if kind == "brain" else known.lesions:
        masks[name.source].append(name)
    scans: dict[frozenset[tuple[str, str]], list[Name]] = defaultdict(list)
    for name in names:
        scans[name.source].append(name)
    unclaimed = [name for source in masks.keys() - scans.keys() for name in masks[source]]
    found: list[Mask] = []
    for name in names:
        try:
            folder = name.path.relative_to(directory).parts[0]
            if ("sub", folder.removeprefix("sub-")) not in name.source:
                raise InputError(f"its name has another subject than its folder {folder}; rename one of them")
            mask = _one(name, masks[name.source], scans[name.source], directory, kind)
            if mask is None and kind == "lesion":
                _refuse_unknown(name, unclaimed, known.errors, directory)
        except InputError as error:
            mask = error
        found.append(mask)
    return found


def _one(scan: Name, masks: list[Name], alike: list[Name], directory: Path, kind: str) -> Mask:
    """The one mask of a scan among the masks with its entities."""
    own = [mask for mask in masks if _space(mask, scan) == _space(scan, scan)]
    own = [mask for mask in own if all(mask.derived.get(key) == scan.derived.get(key) for key in GRID)] or own
    if masks and not own and kind == "lesion":
        path = masks[0].path.relative_to(directory)
        raise InputError(f"its lesion mask {path} is in another space; resample it to the scan, or pass `lesions`")
    if len(own) > 1:
        paths = ", ".join(str(mask.path.relative_to(directory)) for mask in own[:3])
        raise InputError(f"{len(own)} {kind} masks fit it ({paths}); choose with `{kind}s`")
    others = [other for other in alike if other is not scan and other.derived == scan.derived]
    if own and others:
        paths = ", ".join(str(other.path.relative_to(directory)) for other in others)
        raise InputError(f"{own[0].path.name} is also the {kind} mask of {paths}; rename one of the scans")
    return fetched_mask(own[0].path) if own else None


def _space(name: Name, scan: Name) -> str | None:
    """The space of a mask or a scan; None for the scan's own, `orig` or the scan's suffix."""
    space = name.derived.get("space")
    return None if space in ("orig", scan.suffix) else space


def _refuse_unknown(scan: Name, unclaimed: list[Name], errors: list[OSError], directory: Path) -> None:
    """Raise InputError if a scan without a lesion mask may have one under another name."""
    own = dict(scan.source)
    for mask in unclaimed:
        theirs = dict(mask.source)
        if theirs.get("sub") == own["sub"] and theirs.get("ses", own.get("ses")) == own.get("ses"):
            path = mask.path.relative_to(directory)
            raise InputError(f"{path} may be its lesion mask, but has other entities; rename it, or pass `lesions`")
    for error in errors:
        below = [part for part in Path(error.filename).relative_to(directory).parts if part.startswith("sub-")]
        if not below or below[0] == f"sub-{own['sub']}":
            raise InputError(f"its lesion mask may be below {patterns.cannot_be_opened(error)}, or pass `lesions`")
