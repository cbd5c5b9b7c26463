"""Preparation of volumes: scans are sliced in parallel into a `cache`."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from jaxvae import __version__, files
from jaxvae.data.volumes import slices
from jaxvae.data.volumes.cache import ARRAYS, FILES, LINE, refuse_changed
from jaxvae.data.volumes.prepared_scan import LIKE_A_MASK, read_scan
from jaxvae.data.volumes.scans import Rejected, Scan, sources, write_rejected
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.progress import Bar


def prepare(
    directory: str | Path,
    found: Sequence[Scan],
    rejected: Sequence[Rejected],
    slicing: Slicing,
    *,
    label_maps: bool = True,
) -> list[Rejected]:
    """Prepare scans into a cache. A preparation that was interrupted is continued.

    Args:
      label_maps: accept scans that look like masks, with a warning; otherwise they are rejected.

    Returns:
      Everything that was rejected: `rejected`, and the scans that could not be read.

    Raises:
      InputError: the folder holds something else, or a cache of other scans or another slicing; no scan could be read.
    """
    directory = Path(directory)
    plan = {
        "slicing": slices.to_config(slicing),
        "scans": [[_place(field) if isinstance(field, Path) else field for field in scan] for scan in found],
    }
    if not found:
        first = f"; the first: {rejected[0].reason}" if rejected else ""
        raise InputError(f"{directory}: none of {len(rejected)} scans can be used{first}")
    _claim(directory, plan)
    # Each thread holds several copies of a volume. More than a few threads wait for the disk.
    with files.locked(directory), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        parts = directory / "parts"
        if (directory / "cache.json").is_file():
            _remove_parts(directory)
            return [
                Rejected(Path(line["path"]), line["reason"])
                for line in files.read_lines(directory / "rejected.jsonl", {"path": str, "reason": str})
            ]
        dropped = list(rejected)
        results = pool.map(partial(_write_part, parts, slicing, label_maps), range(len(found)), found)
        for scan, reason in zip(found, Bar(results, "prepare", len(found), unit="volume"), strict=True):
            if reason:
                dropped.append(Rejected(scan.image, reason))
                Bar.write(f"left out: {reason}")
        taken = [_part(parts, number) for number in range(len(found)) if _part(parts, number).is_file()]
        if not taken:
            _remove_parts(directory)  # Otherwise the plan would refuse another try.
            raise InputError(f"{directory}: none of {len(dropped)} scans could be read; the first: {dropped[0].reason}")
        _assemble(directory, taken, plan["slicing"], dropped)
        _remove_parts(directory)
        return dropped


def _remove_parts(directory: Path) -> None:
    shutil.rmtree(directory / "parts", ignore_errors=True)
    (directory / "plan.json").unlink(missing_ok=True)


def _claim(directory: Path, plan: dict[str, Any]) -> None:
    """Write the plan into a new folder, or compare it with the plan of a folder that exists."""
    note = "cache.json" if (directory / "cache.json").is_file() else "plan.json"
    before = files.claim(directory, note, plan, what="a folder of prepared volumes")
    if before is None:
        return
    again = "remove that folder and prepare it again"
    if not isinstance(before.get("slicing"), dict) or "scans" not in before:
        raise InputError(f"{directory}: its {note} is damaged or not of prepared volumes; {again} or name a new folder")
    files.refuse_other_settings(directory, slices.to_config(slices.from_config(before["slicing"])), plan["slicing"])
    if before["scans"] != plan["scans"]:
        raise InputError(f"{directory}: was prepared from other scans or masks than there are now; name a new folder")
    for record in files.read_lines(directory / "volumes.jsonl", LINE, way_out=again):
        refuse_changed(directory, record)


def _place(path: Path | None) -> str | None:
    """The absolute path of a file, with links of its folders resolved but not the file's own."""
    return None if path is None else str(path.parent.resolve() / path.name)


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.npz"


def _write_part(parts: Path, slicing: Slicing, label_maps: bool, number: int, scan: Scan) -> str | None:
    """Prepare one scan and write its part. Returns the reason if the scan is rejected."""
    path, origin = _part(parts, number), sources(scan, *FILES)
    if _is_whole(path, origin):
        return None
    try:
        cut = read_scan(scan, slicing)
    except InputError as error:
        return str(error)
    if not label_maps and LIKE_A_MASK in cut.warnings:
        return f"{scan.image}: {LIKE_A_MASK}; give `images`, `brains` and `lesions` patterns"
    placement, lesion = cut.slices.placement, cut.lesion
    masks = np.zeros((0, *cut.slices.brains.shape[1:]), bool)
    lesion_voxels = [0] * cut.brain.shape[2]
    if lesion is not None:
        masks = slices.resampled(lesion, placement, slicing.size)
        lesion_voxels = lesion.sum(axis=(0, 1)).tolist()
    record = {
        "name": scan.name,
        "patient": scan.patient,
        **{kind: _place(getattr(scan, kind)) for kind in FILES},
        "files": origin,
        "placement": placement._asdict(),
        "lesion_voxels": lesion_voxels,  # in each plane of the volume
        "clipped": cut.slices.clipped,
        "is_head": cut.is_head,
        "warnings": list(cut.warnings),
    }
    with files.replacing(path) as file:
        np.savez(file, images=cut.slices.images, brains=cut.slices.brains, masks=masks, record=json.dumps(record))
    return None


def _is_whole(path: Path, origin: dict[str, Any]) -> bool:
    """Whether a part is complete and its scan's files are unchanged. A power loss can leave half of a part."""
    try:
        with path.open("rb") as file, np.load(file) as content:
            return "record" in content and json.loads(str(content["record"])).get("files") == origin
    # Damaged bytes raise errors of many classes in zipfile and NumPy.
    except Exception:
        return False


def _assemble(directory: Path, parts: list[Path], slicing: dict[str, Any], left_out: list[Rejected]) -> None:
    """Join the parts into flat files, with one part in memory at a time."""
    records = [json.loads(str(np.load(part)["record"])) for part in parts]
    start = 0
    for record in records:
        record["start"], record["stop"] = start, start + len(record["placement"]["planes"])
        start = record["stop"]
    digest = hashlib.sha256(json.dumps(slicing).encode())
    # The hash covers what decides the splits and the labels.
    facts = ("name", "patient", "placement", "lesion_voxels")
    digest.update(json.dumps([[record[fact] for fact in facts] for record in records]).encode())
    known = any(record["lesion"] for record in records)
    for name in ARRAYS:
        arrays = _filled(parts, name) if name != "masks" or known else iter([np.load(parts[0])["masks"][:0]])
        _write_array(directory / f"{name}.npy", arrays, start if name != "masks" or known else 0, digest)
    files.write_lines(directory / "volumes.jsonl", records)
    write_rejected(directory / "rejected.jsonl", left_out)
    counts = {"volumes": len(records), "slices": start, "rejected": len(left_out)}
    scans = json.loads((directory / "plan.json").read_bytes())["scans"]
    content = {"jaxvae": __version__, "slicing": slicing, **counts, "hash": digest.hexdigest(), "scans": scans}
    files.write_json(directory / "cache.json", content)


def _filled(parts: list[Path], name: str) -> Iterator[np.ndarray]:
    """One array of each part. A volume without a lesion mask among others with one is healthy."""
    for part in parts:
        try:
            with np.load(part) as content:
                array = content[name]
                array = array if len(array) else np.zeros(content["brains"].shape, bool)
        except (BadZipFile, KeyError, ValueError) as error:
            part.unlink()
            raise InputError(f"{part}: was damaged and was removed; run the same command again") from error
        yield array


def _write_array(path: Path, arrays: Iterator[np.ndarray], count: int, digest: Any) -> None:
    """Write arrays one after another into one .npy file."""
    files.clear_parts(path)
    with files.replacing(path) as file:
        for i, array in enumerate(arrays):
            if i == 0:
                header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *array.shape[1:])})
            content = array.tobytes()
            digest.update(content)
            file.write(content)
