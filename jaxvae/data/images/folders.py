"""The images of a folder and their masks, found by file names.

The layouts are in `layouts`. Every file that is not used is listed with its kind.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxvae.data.images import layouts
from jaxvae.data.images.image_files import FORMATS
from jaxvae.data.images.layouts import Entry, Layout
from jaxvae.data.images.tree import LeftOut, Tree, mask_stem, walk
from jaxvae.data.missing_files import existing_folder, is_dangling
from jaxvae.data.volumes.volume_files import is_volume
from jaxvae.errors import InputError, command

NAMED = 3  # the number of broken links that a summary names


@dataclass(frozen=True)
class FolderContents:
    """The images of a folder, by their use.

    In the layouts `cases` and `halves`, whose images to train on have masks, an image is healthy if its mask is 0. In
    others all images to train on are healthy.
    """

    layout: Layout
    train: list[Entry]
    validation: list[Entry]  # healthy images; if the folder has none for validation, part of `train` is set aside
    test: list[Entry]  # labelled images
    left_out: list[LeftOut] = field(default_factory=list)  # the files that are not used


def find(directory: str | Path) -> FolderContents:
    """Find the images of a folder.

    Images that are broken links, or whose mask is one, are left out.

    Raises:
      InputError: the folder has no layout (the message names a folder below it that has one), an image lacks its
        mask, a mask lacks its image, or two files have one name.
    """
    directory = existing_folder(directory)
    tree = walk(directory)
    layout = layouts.layout_of(tree)
    if layout is None:
        raise _no_layout(directory, tree)
    return _without_links(tree, FolderContents(layout, *layouts.LAYOUTS[layout](tree)))


def refuse_without_training(directory: Path, found: FolderContents) -> None:
    """Raise InputError if there is no image to train on."""
    if found.train:
        return
    links = [one.path for one in found.left_out if one.kind == "broken link"]
    why = f"{links[0]} is a broken link; fetch the linked files" if links else summary(found.left_out)
    raise InputError(f"{directory}: no image to train on{f' ({why})' if why else ''}; add healthy images")


def unlabelled(path: str | Path) -> tuple[list[Entry], list[LeftOut]]:
    """Find all images below a folder, or one image file, without labels.

    Masks, and everything in a folder for masks such as `ground_truth`, are not used. Raises InputError if there is no
    image.
    """
    path = Path(path)
    if path.is_file() and is_volume(path):
        raise InputError(f"{path}: is a volume; pass a run that was trained on prepared volumes")
    if path.is_file():
        return [layouts.single(path, path.parent, "unknown")], []
    tree = walk(existing_folder(path))
    found = [image for folder in tree.files for image in tree.images(folder) if not tree.is_for_masks(folder)]
    entries = [layouts.single(image, path, "unknown") for image in sorted(found, key=tree.order)]
    if not entries and any(is_volume(one.path) for one in tree.left_out):
        raise InputError(f"{path}: holds volumes; pass a run that was trained on prepared volumes")
    if not entries:
        raise InputError(f"{path}: no {FORMATS} image in it or below{_in_brackets(tree)}")
    return entries, tree.left_out + _unused(tree, entries)


def summary(left_out: Sequence[LeftOut]) -> str:
    """The number of unused files of each kind, in words; empty if there are none.

    >>> summary([LeftOut(Path("a.txt"), "file", ".txt"), LeftOut(Path("b_mask.png"), "mask")])
    'left out: 1 file (.txt), 1 mask'
    """
    links = [one.path.name for one in left_out if one.kind == "broken link"]
    names = ", ".join(links[:NAMED]) + (", ..." if len(links) > NAMED else "")
    counts = Counter((one.kind, names if one.kind == "broken link" else one.detail) for one in left_out)
    words = [_words(count, kind, detail) for (kind, detail), count in counts.items()]
    return f"left out: {', '.join(words)}" if words else ""


def records(left_out: Iterable[LeftOut]) -> list[dict[str, str]]:
    """Path and reason of each file that is not used.

    >>> records([LeftOut(Path("a.txt"), "file", ".txt")])
    [{'path': 'a.txt', 'reason': 'file (.txt)'}]
    """
    return [{"path": str(one.path), "reason": _words(1, one.kind, one.detail)[2:]} for one in left_out]


def _words(count: int, kind: str, detail: str) -> str:
    noun = kind if count == 1 else f"{kind}s"
    return f"{count} {noun}" + (f" ({detail})" if detail else "")


def _without_links(tree: Tree, found: FolderContents) -> FolderContents:
    """The contents without broken links, and with the list of all unused files."""
    links: list[LeftOut] = []

    def kept(entries: list[Entry]) -> list[Entry]:
        good = []
        for entry in entries:
            missing = [path for path in (entry.path, *entry.masks) if is_dangling(path)]
            links.extend(LeftOut(path, "broken link") for path in missing)
            if missing and missing[0] != entry.path:
                links.append(LeftOut(entry.path, "image", "its mask is a broken link"))
            if not missing:
                good.append(entry)
        return good

    train, validation, test = (kept(part) for part in (found.train, found.validation, found.test))
    used = train + validation + test
    left_out = [*tree.left_out, *links, *_unused(tree, used, but=[one.path for one in links])]
    return FolderContents(found.layout, train, validation, test, left_out)


def _unused(tree: Tree, used: Sequence[Entry], *, but: Sequence[Path] = ()) -> list[LeftOut]:
    """The image files that no entry uses."""
    known = {path for entry in used for path in (entry.path, *entry.masks)} | {*but}
    rest = []
    for folder, paths in tree.files.items():
        for path in paths:
            if path in known:
                continue
            if mask_stem(path) or tree.is_for_masks(folder):
                rest.append(LeftOut(path, "mask"))
            elif is_dangling(path):
                rest.append(LeftOut(path, "broken link"))
            else:
                rest.append(LeftOut(path, "image", f"in {folder or '.'}"))
    return rest


def _no_layout(directory: Path, tree: Tree) -> InputError:
    for folder in sorted(tree.folders, key=lambda folder: (folder.count("/"), tree.order(Path(folder)))):
        if folder.count("/") < 2 and layouts.layout_of(walk(directory / folder)):
            return InputError(
                f"{directory}: no images to train on directly in it; pass a folder below it, like {directory / folder}"
            )
    if any(is_volume(one.path) for one in tree.left_out):
        return InputError(f"{directory}: holds volumes; first run {command('prepare', directory)}")
    return InputError(
        f"{directory}: has no known layout; arrange it as train/good and test, as folders of cases with <name>.* and "
        f"<name>_mask.*, or as images directly in it{_in_brackets(tree)}"
    )


def _in_brackets(tree: Tree) -> str:
    """The summary of a folder of which no file is used."""
    words = summary(tree.left_out + _unused(tree, []))
    return f" ({words})" if words else ""
