"""The image files below a folder, by folder; which of them are masks by their names; and all other files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxvae.data.images.image_files import SUFFIXES
from jaxvae.data.volumes.volume_files import is_volume
from jaxvae.errors import InputError
from jaxvae.files import is_dangling

# `<name>_mask`, `<name>_GT`, `<name>-seg`, ...: the mask of the image <name>.
MASK_NAME = re.compile(r"(.+)[_.-](?:masks?|gt|labels?|seg|segmentation|ground_?truth)", re.IGNORECASE)
MASK_FOLDERS = {"ground_truth", "groundtruth", "gt", "mask", "masks", "label", "labels", "anomaly_mask", "seg"}


class LeftOut(NamedTuple):
    """A file that is not used."""

    path: Path
    kind: str  # "file" (no image), "hidden file", "mask", "image" or "link to nothing"
    detail: str = ""  # the suffix of a file, or why an image is not used


class Tree(NamedTuple):
    """The files below a folder."""

    root: Path
    folders: list[str]  # visible ones, by their paths below the root, which is ""
    files: dict[str, list[Path]]  # image files and masks of each folder, slice 2 before slice 10; also links to nothing
    left_out: list[LeftOut]  # hidden files and those that are no images

    def images(self, folder: str) -> list[Path]:
        """The image files of a folder that are not masks by their names."""
        return [path for path in self.files.get(folder, []) if not mask_stem(path)]

    def masks(self, folder: str) -> list[Path]:
        """The image files of a folder that are masks by their names."""
        return [path for path in self.files.get(folder, []) if mask_stem(path)]

    def below(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder, in order."""
        return [path.name for path in map(Path, self.folders) if path.parent == Path(folder)]

    def child(self, folder: str | None, *names: str) -> str | None:
        """The first folder directly in a folder that has one of some names, in small or capital letters."""
        if folder is None:
            return None
        there = {name.casefold(): join(folder, name) for name in self.below(folder)}
        return next((there[name] for name in names if name in there), None)

    def is_for_masks(self, folder: str) -> bool:
        """Whether a folder is one for masks by its name or that of one above it."""
        return any(part.casefold() in MASK_FOLDERS for part in Path(folder).parts)

    def order(self, path: Path) -> list[str | int]:
        """A key by which file 2 is before file 10."""
        parts = re.split(r"(\d+)", path.as_posix())
        return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def walk(directory: Path) -> Tree:
    """All files below a folder. Folders that are links are followed, each once.

    Raises:
      InputError: a folder cannot be opened.
    """
    tree = Tree(directory, [], {}, [])
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(directory, followlinks=True, onerror=_refuse):
        place = os.stat(root)
        if (place.st_dev, place.st_ino) in seen:
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        tree.left_out.extend(LeftOut(Path(root, name), "hidden file") for name in (*folders, *names) if name[0] == ".")
        folders[:] = [name for name in folders if name[0] != "."]
        here = Path(root).relative_to(directory).as_posix()
        here = "" if here == "." else here
        tree.folders.extend([here] if here else [])
        for path in (Path(root, name) for name in names if name[0] != "."):
            if path.suffix.lower() in SUFFIXES and (path.is_file() or is_dangling(path)):
                tree.files.setdefault(here, []).append(path)
            else:
                suffix = "".join(path.suffixes[-2:]) if is_volume(path) else path.suffix
                tree.left_out.append(LeftOut(path, "file", suffix or "without suffix"))
    tree.folders.sort(key=lambda folder: tree.order(Path(folder)))
    for paths in tree.files.values():
        paths.sort(key=tree.order)
    return tree


def mask_stem(path: Path) -> str | None:
    """The name of the image that a mask is of, by its own name; None for an image.

    >>> mask_stem(Path("10000_GT.png")), mask_stem(Path("a_mask.tif")), mask_stem(Path("mask.png"))
    ('10000', 'a', None)
    """
    match = MASK_NAME.fullmatch(path.stem)
    return match and match[1]


def join(folder: str, name: str) -> str:
    """The path of a folder below another, which may be the root, ""."""
    return f"{folder}/{name}" if folder else name


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be opened ({error.strerror})")
