"""A cache of prepared volumes: all slices in memory-mapped files.

cache.json        the slicing, the number of volumes, and a hash of the content; written last
volumes.jsonl     one line per volume: name, patient, files, planes, placement, warnings, its slices from start to stop
rejected.jsonl    one line per rejected file, with the reason
images.npy        [N, S, S, C] float32
brains.npy        [N, S, S, 1] bool
masks.npy         [N, S, S, 1] bool; [0, ...] without lesion masks
plan.json, parts/ only during preparation, which continues from its finished volumes after it was killed
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import files
from jaxvae.data.dataset import Dataset, Splits, check_fraction, set_aside, take
from jaxvae.data.volumes import slices
from jaxvae.data.volumes.scans import Scan, sources
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError

ARRAYS = ("images", "brains", "masks")
FILES = ("image", "brain", "lesion")  # the files of a scan
CONTENT = {"slicing": dict, "slices": int, "hash": str, "scans": list}  # required in cache.json
# Required in each line of volumes.jsonl.
LINE = {
    **{"name": str, "patient": str, "image": str, "brain": str | None, "lesion": str | None, "files?": dict},
    **{"placement.shape": list, "placement.planes": list, "lesion_voxels": list, "stop": int},
}


@dataclass(frozen=True)
class Cache:
    """A finished cache with memory-mapped arrays."""

    directory: Path
    slicing: Slicing
    hash: str
    volumes: list[dict[str, Any]]  # the lines of volumes.jsonl
    images: np.ndarray
    brains: np.ndarray
    masks: np.ndarray | None


def is_cache(directory: str | Path) -> bool:
    """Whether a folder holds prepared volumes, finished or not."""
    found = {name for name in ("cache.json", "plan.json", "table.jsonl") if (Path(directory) / name).is_file()}
    return bool(found) and "table.jsonl" not in found


def open_cache(directory: str | Path) -> Cache:
    """Open a finished cache. Raises InputError if it is missing or damaged."""
    directory = Path(directory)
    if not (directory / "cache.json").is_file():
        what = "no prepared volumes in it" if directory.exists() else "no such folder"
        if is_cache(directory):
            what = "its preparation was stopped; repeat the command"
        raise InputError(f"{directory}: {what}")
    try:
        content = files.read_json(directory / "cache.json", CONTENT)
        arrays = {name: files.open_array(directory / f"{name}.npy") for name in ARRAYS}
        records = files.read_lines(directory / "volumes.jsonl", LINE)
        slicing = slices.from_config(content["slicing"])
        for record in records:
            _check_line(record)
    except (InputError, TypeError) as error:
        raise InputError(f"{directory}: damaged, or of another version ({error}); prepare it again") from error
    count, size = content["slices"], slicing.size
    expected = {"images": np.float32, "brains": np.bool_, "masks": np.bool_}
    fits = all(array.shape[1:3] == (size, size) and array.dtype == expected[name] for name, array in arrays.items())
    fits = fits and all(array.ndim == 4 for array in arrays.values())
    fits = fits and len(arrays["images"]) == len(arrays["brains"]) == count and len(arrays["masks"]) in (0, count)
    if not fits or count != sum(len(record["placement"]["planes"]) for record in records):
        raise InputError(f"{directory}: damaged, or of another version: its files do not fit; prepare it again")
    masks = arrays["masks"] if len(arrays["masks"]) else None
    return Cache(directory, slicing, content["hash"], records, arrays["images"], arrays["brains"], masks)


def _check_line(record: dict[str, Any]) -> None:
    """Raise InputError if a line of volumes.jsonl contradicts itself or its name leads out of the output folder."""
    name, placement, lesion_voxels = record["name"], record["placement"], record["lesion_voxels"]
    if files.below(Path("OUT"), name) == Path("OUT") or "\0" in name:
        raise InputError(f"the volume name {name!r} cannot name its results")
    if placement["shape"][2:] != [len(lesion_voxels)] or not all(type(count) is int for count in lesion_voxels):
        raise InputError(f"{name}: its lesion_voxels do not fit its planes")
    if not all(type(z) is int and 0 <= z < len(lesion_voxels) for z in placement["planes"]):
        raise InputError(f"{name}: its planes are outside the volume")
    if unknown := record.get("files", {}).keys() - {*FILES}:
        raise InputError(f"{name}: its files have the unknown kind {min(unknown)!r}")


def scan_of(record: dict[str, Any]) -> Scan:
    """The scan of a line of volumes.jsonl."""
    brain, lesion = (None if record[key] is None else Path(record[key]) for key in ("brain", "lesion"))
    return Scan(record["name"], record["patient"], Path(record["image"]), brain, lesion)


def scans(cache: Cache, patients: Collection[str] | None = None) -> list[Scan]:
    """The scans of all or some patients. Raises InputError for changed files."""
    wanted = None if patients is None else set(patients)
    records = [record for record in cache.volumes if wanted is None or record["patient"] in wanted]
    for record in records:
        refuse_changed(cache.directory, record)
    return [scan_of(record) for record in records]


def refuse_changed(directory: Path, record: dict[str, Any]) -> None:
    """Raise InputError if a file of a volume has changed since preparation.

    Missing files are accepted.
    """
    now = sources(scan_of(record), *FILES)
    for kind, before in record.get("files", {}).items():
        if now[kind] not in (None, before):
            raise InputError(
                f"{directory}: {record[kind]} has changed since it was prepared; remove that folder and prepare it "
                "again in the same place. Runs can continue if the slices are the same"
            )


def is_head(record: dict[str, Any]) -> bool:
    """Whether the whole head was taken as the brain of a volume.

    That is so without a brain mask, unless the scan was skull-stripped.
    """
    # Earlier versions said so only in a warning.
    return record.get("is_head", any("the whole head was taken" in line for line in record.get("warnings", [])))


def slice_names(record: dict[str, Any]) -> list[str]:
    """The names of a volume's slices, from its line of volumes.jsonl."""
    return [f"{record['name']}/{z:03d}" for z in record["placement"]["planes"]]


def images_of(cache: Cache, record: dict[str, Any]) -> np.ndarray:
    """A volume's slices, [K, S, S, C], memory-mapped."""
    return cache.images[record["start"] : record["stop"]]


def missing_files(cache: Cache, patients: Collection[str]) -> str:
    """How many files of some patients' scans no longer exist, in words; empty if none is missing."""
    wanted = set(patients)
    scans = [scan_of(record) for record in cache.volumes if record["patient"] in wanted]
    paths = [path for scan in scans for path in (scan.image, scan.brain, scan.lesion) if path is not None]
    missing = [path for path in paths if not path.exists()]
    return f"{len(missing)} files of its scans are gone, such as {missing[0]}" if missing else ""


def dataset(cache: Cache) -> Dataset:
    """All slices as a memory-mapped data set.

    A slice is anomalous if its plane of the scan has a lesion voxel.
    """
    labels, names, groups = [], [], []
    for record in cache.volumes:
        labels += [record["lesion_voxels"][z] > 0 for z in record["placement"]["planes"]]
        names += slice_names(record)
        groups += [record["patient"]] * len(record["placement"]["planes"])
    kinds = tuple("anomalous" if label else "good" for label in labels)
    return Dataset(cache.images, np.array(labels, bool), cache.masks, tuple(names), tuple(groups), kinds)


def load(directory: str | Path, *, validation: float = 0.1, test: float = 0.3, seed: int = 0) -> Splits:
    """Split the slices of a cache by patient.

    The test holds all slices of some patients. Training and validation hold the healthy slices of the others: no
    channel, the slice itself or a neighbour, shows a lesion. Without lesion masks all slices count as healthy and the
    test is empty.

    Args:
      validation: fraction of the remaining patients to validate on.
      test: fraction of the patients to test on.
      seed: of both random draws.

    Raises:
      InputError: as `open_cache`; a fraction is out of range; there are too few patients.
    """
    check_fraction("validation", validation)
    check_fraction("test", test)
    cache = open_cache(directory)
    everything = dataset(cache)
    fraction = 0.0 if cache.masks is None else test
    rest, tested = set_aside(directory, everything, "test", fraction, seed)
    healthy = _healthy(cache)
    rest = replace(take(rest, np.array([name in healthy for name in rest.names], bool)), masks=None)
    train, validated = set_aside(directory, rest, "validation", validation, seed)
    return Splits(train=train, validation=validated, test=tested)


def _healthy(cache: Cache) -> set[str]:
    """The names of the slices without a lesion in any channel."""
    reach = cache.slicing.neighbours
    return {
        name
        for record in cache.volumes
        for name, z in zip(slice_names(record), record["placement"]["planes"], strict=True)
        if not any(record["lesion_voxels"][max(z - reach, 0) : z + reach + 1])
    }
