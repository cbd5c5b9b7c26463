"""The images of a run: its own splits, and other labelled test images."""

from pathlib import Path

import numpy as np

from jaxvae.data import images, kinds
from jaxvae.data.dataset import Dataset, Splits, contents, fingerprint, same_contents, sketches
from jaxvae.data.volumes import cache, slices
from jaxvae.errors import InputError
from jaxvae.runs import trained_on
from jaxvae.runs.run import Run


def open_own(run: Run) -> Splits:
    """Load the images of a run, split as when it was trained.

    Raises:
      InputError: as `kinds.open_splits`; the images are gone, or differ from those that the run was trained on.
    """
    source, folder = run.source, kinds.folder_of(run.source)
    if folder is not None and not folder.exists():
        way_out = f"train {run.run_dir} once with their new place as `data` and all its other settings"
        raise InputError(f"{source.data}: no such folder; if the images have moved, {way_out}")
    splits, was = kinds.open_splits(source), run.config["images"]
    others = f"{source.data}: holds other images than when the run was trained"
    way_out = "bring those back, or train a new run"
    if run.kind is kinds.VOLUMES:
        hash_now = cache.open_cache(source.data).hash if cache.is_cache(source.data) else None
        if hash_now != run.config["volumes"]["hash"]:
            raise InputError(f"{source.data}: was prepared again since the run was trained on it; train a new run")
    if was.get("contents"):
        if not same_contents(was["contents"], contents(splits.train.images, splits.validation.images)):
            raise InputError(f"{others}; {way_out}")
    elif was.get("image_names") not in (None, fingerprint(splits)):
        raise InputError(f"{others}, so that some of these would be tested; {way_out}")
    return splits


def at_hand(run: Run, other: Path | None) -> tuple[Run, Path | None]:
    """Recognise a run's own prepared volumes that have moved.

    Returns:
      The run with the new place of its images and None, so that it is tested on its own test set; in all other cases
      both arguments unchanged.
    """
    if other is None or run.kind is not kinds.VOLUMES or not cache.is_cache(other):
        return run, other
    data = run.config["data"]
    if cache.open_cache(other).hash != run.config["volumes"]["hash"] or Path(data["data"]).exists():
        return run, other
    return run._replace(config={**run.config, "data": {**data, "data": str(other.absolute())}}), None


def open_other(run: Run, folder: Path) -> tuple[Dataset, tuple[str, ...]]:
    """Load all labelled images of another folder, or other volumes, to test on.

    Returns:
      The images, and lines for the user.

    Raises:
      InputError: the images have no labels, volumes were sliced differently, or the run was trained on one of them.
    """
    unknown = "the run is of an earlier version and its images are gone, so it may be trained on some of these"
    notices = () if (run.run_dir / trained_on.FILE).is_file() else (unknown,)
    if run.kind is kinds.VOLUMES:
        return _other_volumes(run, folder), notices
    found, lines = images.load_test(folder, preparation=kinds.preparation(run.source))
    sketched = sketches(found.images)
    # Images with a single value, such as empty ones, look the same wherever they come from.
    sketched[[np.ptp(image) == 0 for image in found.images]] = np.nan
    of_images = dict(zip((str(folder / name) for name in found.names), sketched.tolist(), strict=True))
    trained_on.refuse(run.run_dir, of_images, folder)
    return found, (*notices, *lines)


def _other_volumes(run: Run, folder: Path) -> Dataset:
    """All slices of other prepared volumes, sliced as the run's own were."""
    wanted, opened = slices.from_config(run.config["volumes"]["slicing"]), cache.open_cache(folder)
    if opened.slicing != wanted:
        problem = f"was prepared with {opened.slicing}, and what the run was trained on with {wanted}"
        raise InputError(f"{folder}: {problem}; prepare it with the same flags")
    of_volumes = {record["image"]: contents(cache.images_of(opened, record)) for record in opened.volumes}
    trained_on.refuse(run.run_dir, of_volumes, folder)
    return cache.dataset(opened)
