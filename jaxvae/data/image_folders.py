"""What lies in a folder of images, read from names alone: its layout, its images, and the mask of each.

- benchmark: `train/good/*`, `test/good/*`, `test/<kind>/*` and `ground_truth/<kind>/<name>_mask.*`, as MVTec AD has it
  (Bergmann et al., CVPR 2019). Without a `ground_truth` folder there are labels, but no masks.
- cases: one folder per patient with `<name>.*` and `<name>_mask.*` for every slice.
- flat: images directly in the folder.

Only PNG, JPEG, TIFF and npy count; hidden files and any other suffix are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from jaxvae.data.image_files import SUFFIXES
from jaxvae.data.patterns import files_below
from jaxvae.data.volumes import is_volume
from jaxvae.errors import InputError, command

Layout = Literal["benchmark", "cases", "flat"]


class Entry(NamedTuple):
    """One image of a folder, before it is read."""

    path: Path
    mask: Path | None
    name: str
    group: str
    kind: str | None  # None: the mask says whether it is `good` or `anomalous`


def layout_of(directory: str | Path) -> Layout:
    """The layout of a folder.

    Raises:
      InputError: it has none; where a folder below it has one, that is named.
    """
    directory = _existing(directory)
    layout = _guess(directory)
    if layout:
        return layout
    below = [folder for folder in (*_folders_in(directory), directory / "train" / "good") if _guess(folder)]
    if below:
        raise InputError(
            f"{directory}: no images to learn from directly in it; pass a folder below it, like {below[0]}"
        )
    if any(is_volume(path) for path in directory.rglob("*")):
        raise InputError(f"{directory}: holds volumes; first run {command('prepare', directory, '--out', 'PATH')}")
    raise InputError(
        f"{directory}: neither train/good and test, nor folders of cases with <name>.* and <name>_mask.*, "
        "nor images directly in it; arrange it as one of these"
    )


def healthy(directory: Path, folder: Path) -> list[Entry]:
    """The images of one folder below `directory`, all healthy."""
    paths = _images_in(folder, "*")
    if not paths:
        raise InputError(f"{folder}: no PNG, JPEG, TIFF or npy image in it")
    for path in filter(_is_mask, paths):
        raise InputError(f"{path}: a mask, but all images here count as healthy; give each case a folder of its own")
    return [_alone(path, directory, "good") for path in paths]


def judged(directory: Path) -> list[Entry]:
    """`test/<kind>` of the benchmark layout, with masks from `ground_truth/<kind>` where there is such a folder."""
    truth = directory / "ground_truth"
    entries = []
    for kind in dict.fromkeys(folder.name for folder in _folders_in(directory / "test") + _folders_in(truth)):
        needed = truth.is_dir() and kind != "good"
        pairs = _pairs(directory / "test" / kind, truth / kind, needed)
        entries += [_alone(path, directory, kind)._replace(mask=mask) for path, mask in pairs]
    if not entries:
        raise InputError(
            f"{directory / 'test'}: no folder of images; pass {directory / 'train' / 'good'} to go without"
        )
    return entries


def cases(directory: Path) -> list[Entry]:
    """The slices of all cases, in the order of their numbers, grouped by case."""
    return [
        Entry(path, mask, _name(path, directory), folder.name, None)
        for folder in _folders_in(directory)
        for path, mask in _pairs(folder, folder, needed=True)
    ]


def unlabelled(path: str | Path) -> list[Entry]:
    """All images below a folder, or the one image that the path names; masks are passed over."""
    path = Path(path)
    if path.is_file() and is_volume(path):
        raise InputError(f"{path}: is a volume; volumes are scored by a run that was trained on prepared volumes")
    if path.is_file():
        return [_alone(path, path.parent, "unknown")]
    paths = [image for image in _images_below(_existing(path)) if not _is_mask(image)]
    if not paths and any(is_volume(below) for below in path.rglob("*")):
        raise InputError(f"{path}: holds volumes; volumes are scored by a run that was trained on prepared volumes")
    if not paths:
        raise InputError(f"{path}: no PNG, JPEG, TIFF or npy image in it or below")
    return [_alone(image, path, "unknown") for image in paths]


def _guess(directory: Path) -> Layout | None:
    if (directory / "train" / "good").is_dir() and (directory / "test").is_dir():
        return "benchmark"
    if any(_is_mask(path) for path in _images_in(directory, "*/*")):
        return "cases"
    return "flat" if _images_in(directory, "*") else None


def _existing(directory: str | Path) -> Path:
    """The folder, or an InputError where there is none."""
    directory = Path(directory)
    if not directory.is_dir():
        found = "is a file; pass its folder" if directory.exists() else "no such folder"
        raise InputError(f"{directory}: {found}")
    return directory


def _alone(path: Path, directory: Path, kind: str) -> Entry:
    """An image that is a group by itself."""
    return Entry(path, None, _name(path, directory), _name(path, directory), kind)


def _pairs(image_folder: Path, mask_folder: Path, needed: bool) -> list[tuple[Path, Path | None]]:
    """The images of one folder, each with its mask in the other, which it must have where masks are needed."""
    images = _by_stem([path for path in _images_in(image_folder, "*") if not _is_mask(path)])
    masks = _by_stem([path for path in _images_in(mask_folder, "*") if _is_mask(path)])
    for stem, mask in masks.items():
        if stem.removesuffix("_mask") not in images:
            raise InputError(f"{mask}: a mask, but its image {image_folder / stem.removesuffix('_mask')}.* is missing")
    for stem, image in images.items():
        if needed and f"{stem}_mask" not in masks:
            raise InputError(f"{image}: its mask {mask_folder / stem}_mask.* is missing; a healthy image's is all zero")
    return [(path, masks.get(f"{stem}_mask")) for stem, path in images.items()]


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(f"{path}: has the same name as {found[path.stem].name}; remove or rename one of them")
        found[path.stem] = path
    return found


def _folders_in(directory: Path) -> list[Path]:
    return sorted((path for path in directory.glob("[!.]*") if path.is_dir()), key=_natural)


def _images_in(directory: Path, pattern: str) -> list[Path]:
    """Visible image files below `directory`, slice 2 before slice 10; none where there is no such folder."""
    return sorted(
        (
            path
            for path in directory.glob(pattern)
            if path.suffix.lower() in SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(directory).parts)
        ),
        key=_natural,
    )


def _images_below(directory: Path) -> list[Path]:
    """Visible image files anywhere below `directory`, through links too, in the same order."""
    paths, errors = files_below(directory, lambda path: path.name.startswith("."))
    if errors:
        raise InputError(f"{errors[0].filename}: cannot be opened ({errors[0].strerror})")
    return sorted((path for path in paths if path.suffix.lower() in SUFFIXES), key=_natural)


def _is_mask(path: Path) -> bool:
    return path.stem.endswith("_mask")


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def _natural(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", path.as_posix())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
