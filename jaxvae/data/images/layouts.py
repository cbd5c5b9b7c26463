"""Folder layouts of data sets of images.

| layout | data sets | trained on | validated on | tested on | masks |
|---|---|---|---|---|---|
| benchmark | MVTec AD | train/good | | test/KIND | ground_truth/KIND/NAME_mask |
| | MVTec LOCO | train/good | validation/good | test/KIND | ground_truth/KIND/NAME/NUMBER, several |
| | VisA for PyTorch | train/good | | test/KIND | ground_truth/KIND/NAME |
| | BTech | train/ok | | test/ok, test/ko | ground_truth/ko/NAME |
| | BMAD | train/good | valid/good/img | test/KIND/img | test/KIND/label/NAME |
| visa | VisA | by split_csv/1cls.csv beside it | | | Data/Masks/Anomaly/NAME |
| halves | KolektorSDD2 | train/NAME | | test/NAME | NAME_GT beside the image |
| cases | KolektorSDD, patients | CASE/NAME | | some cases | CASE/NAME_mask or NAME_label |
| flat | | NAME | | | |

Names are compared without case. `ok` and `normal` mean `good` too. A benchmark without folders of masks has labels but
no masks. References: Bergmann et al., CVPR 2019 (MVTec AD).
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from jaxvae.data.images.tree import Tree, join, mask_stem
from jaxvae.errors import InputError

Layout = Literal["benchmark", "visa", "halves", "cases", "flat"]

HEALTHY = ("good", "ok", "normal")
TEST = ("test", "test_public")
VALIDATION = ("validation", "valid", "val")
IMAGES = ("img", "imgs", "image", "images", "rgb")  # folders of images within the folder of a kind
MASKS = ("label", "labels", "mask", "masks", "gt", "anomaly_mask")
TRUTH = ("ground_truth", "groundtruth")


class Entry(NamedTuple):
    """One image of a folder, by its files."""

    path: Path
    masks: tuple[Path, ...]  # the anomaly is their union
    name: str
    group: str
    kind: str | None  # None: `good` or `anomalous` by its masks


Parts = tuple[list[Entry], list[Entry], list[Entry]]  # to train on, to validate on, to test on


def layout_of(tree: Tree) -> Layout | None:
    """The layout of a folder, None if it has none."""
    train, test = tree.child("", "train"), tree.child("", *TEST)
    if test and (tree.child(train, *HEALTHY) or tree.child(test, *HEALTHY) or tree.child("", *TRUTH)):
        return "benchmark"
    if _visa_images(tree):
        return "visa"
    if train and test and tree.masks(train) and tree.masks(test):
        return "halves"
    if any(tree.masks(folder) for folder in tree.below("")):
        return "cases"
    return "flat" if tree.files.get("") else None


def single(path: Path, directory: Path, kind: str | None, masks: tuple[Path, ...] = ()) -> Entry:
    """An image that is its own group."""
    name = path.relative_to(directory).as_posix()
    return Entry(path, masks, name, name, kind)


def _benchmark(tree: Tree) -> Parts:
    test, truth = tree.child("", *TEST), tree.child("", *TRUTH)
    assert test is not None
    train = _healthy(tree, tree.child(tree.child("", "train"), *HEALTHY))
    validation = _healthy(tree, tree.child(tree.child("", *VALIDATION), *HEALTHY))
    truth = truth or tree.child(test, *TRUTH)
    kinds = [kind for kind in tree.below(test) if kind.casefold() not in TRUTH]
    tested = []
    for kind in dict.fromkeys(kinds + (tree.below(truth) if truth else [])):
        place = join(test, kind)
        masks = tree.child(truth, kind.casefold()) or tree.child(place, *MASKS)
        masks = masks or (join(truth, kind) if truth else None)
        needed = masks is not None and kind.casefold() not in HEALTHY
        pairs = _pairs(tree, _images_of(tree, place), masks, needed=needed, inside=True)
        name = "good" if kind.casefold() in HEALTHY else kind
        tested += [single(path, tree.root, name, found) for path, found in pairs]
    if not tested:
        good = tree.root / (tree.child(tree.child("", "train"), *HEALTHY) or "train/good")
        raise InputError(f"{tree.root / test}: no folder of images; pass {good} to train without test images")
    return train, validation, tested


def _halves(tree: Tree) -> Parts:
    return _paired(tree, tree.child("", "train")), [], _paired(tree, tree.child("", *TEST))


def _paired(tree: Tree, folder: str | None) -> list[Entry]:
    """The images of a folder, each with its mask in the same folder."""
    assert folder is not None, "`layout_of` has found it"
    return [single(path, tree.root, None, masks) for path, masks in _pairs(tree, folder, folder, needed=True)]


def _cases(tree: Tree) -> Parts:
    """The slices of all cases, in the order of their numbers, grouped by case."""
    return [e._replace(group=folder) for folder in tree.below("") for e in _paired(tree, folder)], [], []


def _flat(tree: Tree) -> Parts:
    if masks := tree.masks(""):
        up = tree.root.parent
        raise InputError(
            f"{masks[0]}: is a mask, but all images here count as healthy; put each case into its own folder, or pass "
            f"{up} if {tree.root.name} is one of its cases"
        )
    return _healthy(tree, ""), [], []


def _visa(tree: Tree) -> Parts:
    """The images by the splits of split_csv/1cls.csv, which is beside the folders of all objects."""
    table = Path(os.path.abspath(tree.root)).parent / "split_csv" / "1cls.csv"
    if not table.is_file():
        raise InputError(
            f"{tree.root}: has the folders of VisA, but {table} with its splits is missing; copy it there, or arrange "
            "the images as train/good, test/good, test/bad and ground_truth/bad"
        )
    parts: Parts = [], [], []
    there = {path for paths in tree.files.values() for path in paths}
    for row in _rows(table):
        if Path(row["image"]).parts[0] != Path(os.path.abspath(tree.root)).name:
            continue
        image, mask = (tree.root / Path(*Path(row[name]).parts[1:]) for name in ("image", "mask"))
        healthy = row["label"].casefold() in HEALTHY
        for path in (image,) if healthy else (image, mask):
            if path not in there:
                raise InputError(f"{table}: names {path}, which is missing; copy it there, or remove it from the table")
        entry = single(image, tree.root, "good" if healthy else row["label"], () if healthy else (mask,))
        parts[0 if row["split"] == "train" else 2].append(entry)
    if not parts[0] or any(entry.kind != "good" for entry in parts[0]):
        found = "trains on anomalous images" if parts[0] else f"has no training images of {tree.root.name}"
        raise InputError(f"{table}: {found}; use the 1cls.csv of VisA")
    return parts


def _rows(table: Path) -> list[dict[str, str]]:
    """The rows of VisA's table, whose paths must stay within its folder."""
    columns = {"object", "split", "label", "image", "mask"}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read ({error}); copy it again") from error
    for row in rows:
        if not columns <= row.keys() or any(row[name] is None for name in columns) or not row["image"]:
            raise InputError(f"{table}: lacks one of the columns {', '.join(sorted(columns))}; copy it again")
        for name in (row["image"], row["mask"]):
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise InputError(f"{table}: names {name}, which is outside its folder; remove it from the table")
    return rows


def _visa_images(tree: Tree) -> str | None:
    """The folder of the healthy images in the layout of VisA."""
    images = tree.child(tree.child("", "data"), "images")
    return tree.child(images, *HEALTHY) if tree.child(images, "anomaly") else None


LAYOUTS: dict[Layout, Callable[[Tree], Parts]] = {
    "benchmark": _benchmark,
    "visa": _visa,
    "halves": _halves,
    "cases": _cases,
    "flat": _flat,
}


def _images_of(tree: Tree, folder: str) -> str:
    """The folder of the images of a kind: the kind's own, or a folder in it with a name for images."""
    return tree.child(folder, *IMAGES) or folder


def _healthy(tree: Tree, folder: str | None) -> list[Entry]:
    """The images of a folder as healthy ones, without masks; empty if there is no folder."""
    paths = [] if folder is None else tree.images(_images_of(tree, folder) if folder else "")
    return [single(path, tree.root, "good") for path in paths]


def _pairs(
    tree: Tree, images_in: str, masks_in: str | None, *, needed: bool, inside: bool = False
) -> list[tuple[Path, tuple[Path, ...]]]:
    """The images of one folder, each with its masks in another.

    Args:
      needed: every image must have a mask.
      inside: all files of the masks' folder are masks: NAME.*, NAME_mask.* and all files in a folder NAME.
    """
    images = _by_stem(tree.images(images_in))
    if masks_in is None:
        return [(path, ()) for path in images.values()]
    masks: dict[str, tuple[Path, ...]] = {}
    for path in tree.files.get(masks_in, []):
        stem = mask_stem(path) if not (inside and path.stem in images) else path.stem
        if stem is None and not inside:
            continue
        if (stem := stem or path.stem) in masks:
            raise InputError(f"{path}: is a second mask of {stem} beside {masks[stem][0].name}; remove one of them")
        masks[stem] = (path,)
    for name in tree.below(masks_in) if inside else []:
        if found := tree.files.get(join(masks_in, name)):
            masks[name] = (*masks.get(name, ()), *found)
    for stem, found in masks.items():
        if stem not in images:
            image = tree.root / images_in / stem
            raise InputError(
                f"{found[0]}: is a mask, but its image {image}.* is missing; restore it or remove the mask"
            )
    for stem, image in images.items():
        if needed and stem not in masks:
            mask = tree.root / masks_in / f"{stem}_mask.*"
            raise InputError(f"{image}: its mask {mask} is missing; add one (all zero if healthy)")
    return [(path, masks.get(stem, ())) for stem, path in images.items()]


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise InputError(f"{path}: has the same name as {found[path.stem].name}; remove or rename one of them")
        found[path.stem] = path
    return found
