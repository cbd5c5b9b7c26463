"""All files below a folder: images by folder, masks by their names, and the rest."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxvae.data.images.image_files import SUFFIXES
from jaxvae.data.missing_files import is_dangling
from jaxvae.data.volumes.volume_files import is_volume
from jaxvae.errors import InputError

# `<name>_mask`, `<name>_GT`, `<name>-seg`, ...: the mask of the image <name>.
MASK_NAME = re.compile(r"(.+)[_.-](?:masks?|gt|labels?|seg|segmentation|ground_?truth)", re.IGNORECASE)
MASK_FOLDERS = {"ground_truth", "groundtruth", "gt", "mask", "masks", "label", "labels", "anomaly_mask", "seg"}


class LeftOut(NamedTuple):
    """A file that is not used."""

    path: Path
    kind: str  # "file" (not an image), "hidden file", "mask", "image" or "broken link"
    detail: str = ""  # the suffix of a file, or why an image is not used


class Tree(NamedTuple):
    """The files below a folder."""

    root: Path
    folders: list[str]  # visible folders, by their paths below the root, which is ""
    files: dict[str, list[Path]]  # images, masks and broken links per folder, slice 2 before slice 10
    left_out: list[LeftOut]  # hidden files and files that are not images

    def images(self, folder: str) -> list[Path]:
        """The image files of a folder without masks."""
        return [path for path in self.files.get(folder, []) if not mask_stem(path)]

    def masks(self, folder: str) -> list[Path]:
        """The masks of a folder, by their names."""
        return [path for path in self.files.get(folder, []) if mask_stem(path)]

    def below(self, folder: str) -> list[str]:
        """The names of the folders directly in a folder, in order."""
        return [path.name for path in map(Path, self.folders) if path.parent == Path(folder)]

    def child(self, folder: str | None, *names: str) -> str | None:
        """The first folder in a folder with one of some names, ignoring case."""
        if folder is None:
            return None
        there = {name.casefold(): join(folder, name) for name in self.below(folder)}
        return next((there[name] for name in names if name in there), None)

    def is_for_masks(self, folder: str) -> bool:
        """Whether a folder is for masks, by its name or the name of a folder above it."""
        return any(part.casefold() in MASK_FOLDERS for part in Path(folder).parts)

    def order(self, path: Path) -> list[str | int]:
        """A sort key that puts file 2 before file 10."""
        parts = re.split(r"(\d+)", path.as_posix())
        return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def walk(directory: Path) -> Tree:
    """List all files below a folder. Links to folders are followed, each folder once."""
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
    """The name of a mask's image, by the mask's name; None for an image.

    >>> mask_stem(Path("10000_GT.png")), mask_stem(Path("a_mask.tif")), mask_stem(Path("mask.png"))
    ('10000', 'a', None)
    """
    match = MASK_NAME.fullmatch(path.stem)
    return match and match[1]


def join(folder: str, name: str) -> str:
    """The path of a folder in another, which may be the root, ""."""
    return f"{folder}/{name}" if folder else name


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be opened ({error.strerror}); change its permissions")
