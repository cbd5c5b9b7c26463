"""Maps of volumes in a folder, each on its scan's own grid.

A stopped call can be continued.

OUT/.settings.json       the run and the maps; another run or other maps are refused
OUT/<name>_<map>.nii.gz  float32, on the scan's own grid
OUT/<name>_mask.nii.gz   uint8, 1 where the first map reaches the threshold, if there is one
OUT/<name>.json          the scores of the volume and of its slices; written last, so it says that the volume is done
OUT/times.jsonl          one line per volume: seconds of reading, scoring and writing
OUT/failed.jsonl         the scans that could not be scored, with their reasons

With a shard, the names of the last two files include it.
"""

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import files
from jaxvae.data.volumes import cache, volume_files
from jaxvae.data.volumes import scans as scan_files
from jaxvae.data.volumes.scans import Rejected, Scan, sources
from jaxvae.errors import ArgumentError, InputError
from jaxvae.runs.fitting import fit_scores
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import finite_rows
from jaxvae.scoring.healthy_stats import outside_ranges
from jaxvae.scoring.volume_scores import AHEAD, VolumeScores, score_scans
from jaxvae.scoring.writing import MapSettings, Outcome, Scored, claim_maps_folder, maps_folder, write_each

NOTE = ".settings.json"
STAGES = ("read", "score", "write")  # the seconds in times.jsonl
AGAIN = "scored again: a file was missing, or the threshold has changed"
FAR = "most slices have values far outside the range of the training slices"


def score_volume_folder(
    run: Run,
    folder: Path,
    out: Path | None,
    wanted: MapSettings,
    *,
    images: str | None = None,
    brains: str | None = None,
    shard: str | None = None,
) -> tuple[Path, Outcome]:
    """Write the maps of volumes in a folder: `jaxvae score RUN FOLDER`.

    Args:
      images, brains: patterns of the scans and of their brain masks; None searches for them.
      shard: I/N, every N-th volume from the I-th; None stands for all.

    Returns:
      The output folder, which is RUN/scores/NAME if `out` is None; and what was written.

    Raises:
      InputError: as `write_volumes`, or there is no volume, or an argument does not fit the folder.
    """
    out = maps_folder(run, folder, out)
    if cache.is_cache(folder):
        for name, pattern in {"images": images, "brains": brains}.items():
            if pattern is not None:
                raise ArgumentError(name, pattern, f"{folder} holds prepared volumes, all of which are scored")
        found, rejected = cache.scans(cache.open_cache(folder)), []
    else:
        found, rejected = scan_files.unlabelled(folder, images=images, brains=brains)
    part = _shard(shard)
    fit_scores(run, wanted.maps)
    suffix = f"-{shard.replace('/', 'of')}" if shard else ""
    outcome = write_volumes(run, found[part], out, wanted, rejected=rejected[part], suffix=suffix)
    return out, outcome._replace(notices=scan_files.shared(found))


def stage_seconds(outcome: Outcome) -> dict[str, float]:
    """The seconds of reading, scoring and writing; the stages overlap."""
    return {stage: sum(record[stage] for record in outcome.records) for stage in STAGES}


def _shard(shard: str | None) -> slice:
    if shard is None:
        return slice(None)
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not int(match[1]) < int(match[2]):
        raise ArgumentError("shard", shard, "must be I/N with I from 0 to N - 1, such as 0/4")
    return slice(int(match[1]), None, int(match[2]))


def write_volumes(
    run: Run,
    scans: Sequence[Scan],
    out: Path,
    wanted: MapSettings,
    *,
    rejected: Sequence[Rejected] = (),
    suffix: str = "",
) -> Outcome:
    """Write the maps of scans into a folder, except those that are written already.

    A scan that cannot be read is recorded as a failure, and the others are scored all the same. Scans with masks of
    another threshold are scored again.

    Args:
      rejected: scans that cannot be scored, for failed.jsonl.
      suffix: added to the names of times.jsonl and failed.jsonl, for processes that share the folder.

    Raises:
      InputError: the folder holds maps of another run, or other maps; it cannot be written to, or the disk is full.
    """
    claim_maps_folder(out, NOTE, {"maps": list(wanted.maps), "step": run.step, **run.config})
    todo: list[Scan] = []
    failed = list(rejected)
    for scan in scans:
        try:
            todo += [] if _is_done(out, scan, wanted.threshold) else [scan]
        except InputError as error:
            failed.append(Rejected(scan.image, str(error)))
    again = [scan.name for scan in todo if files.below(out, f"{scan.name}.json").is_file()]
    results = _score_each(run, todo, out, wanted)
    log, failures = (out / f"{name}{suffix}.jsonl" for name in ("times", "failed"))
    skipped = len(scans) - len(todo) - (len(failed) - len(rejected))
    counts = {"total": len(scans), "skipped": skipped, "ahead": AHEAD}
    outcome = write_each(results, log=log, failures=failures, unit="volume", rejected=failed, **counts)
    return outcome._replace(warnings=({AGAIN: again} if again else {}) | outcome.warnings)


def _score_each(run: Run, scans: Sequence[Scan], out: Path, wanted: MapSettings) -> Iterator[Scored | Rejected]:
    """The scores of each scan, with their warnings; a scan with scores that are not finite comes as `Rejected`."""
    for volume in score_scans(run, scans, maps=wanted.maps, batch_size=wanted.batch_size):
        if isinstance(volume, Rejected):
            yield volume
            continue
        path, every_score = volume.scan.image, {**volume.scores.image_scores, **volume.scores.maps}
        if reasons := [*finite_rows(every_score, [str(path)] * len(volume.scores.seconds))[1].values()]:
            yield Rejected(path, reasons[0])
            continue
        far = wanted.ranges is not None and outside_ranges(wanted.ranges, volume.cut.slices.images).mean() > 0.5
        warnings = (*volume.cut.warnings, FAR) if far else volume.cut.warnings
        yield Scored(volume.scan.name, path, warnings, partial(_write, volume, run, out, wanted))


def _is_done(out: Path, scan: Scan, threshold: float | None) -> bool:
    """Whether a scan's files and its record are written, with the same threshold.

    Raises:
      InputError: the record belongs to another scan, or was made with another brain mask.
    """
    path = files.below(out, f"{scan.name}.json")
    if not path.is_file():
        return False
    try:
        record = files.read_json(path, {"source": object, "maps": dict})
        source, written = record["source"], [path.parent / name for name in record["maps"].values()]
    except (InputError, TypeError):
        return False  # Damaged, as after a loss of power: the scan is scored again.
    if source != sources(scan, "image", "brain"):
        problem = "holds the scores of another scan or brain mask of this name"
        raise InputError(f"{path}: {problem}; name another output folder")
    written += [] if threshold is None else [files.below(out, f"{scan.name}_mask.nii.gz")]
    return record.get("threshold") == threshold and all(file.is_file() for file in written)


def _write(volume: VolumeScores, run: Run, out: Path, wanted: MapSettings) -> dict[str, Any]:
    """Write the files of one volume; returns its line of times.jsonl."""
    begin = time.perf_counter()
    scan, image_scores, threshold = volume.scan, volume.scores.image_scores, wanted.threshold
    maps = {name: files.below(out, f"{scan.name}_{name}.nii.gz") for name in volume.scores.maps}
    mask, done = (files.below(out, f"{scan.name}{ending}") for ending in ("_mask.nii.gz", ".json"))
    for path in (*maps.values(), mask, done):
        files.clear_parts(path)
    done.unlink(missing_ok=True)  # The old record would be wrong until all new files are written.
    mask.unlink(missing_ok=True)
    if threshold is not None:
        anomalous = (volume.map(wanted.pixel_maps[0]) >= threshold) & volume.cut.brain
        volume_files.write(mask, anomalous, volume.cut.volume, description="jaxvae mask")
    highest = {}
    for name, path in maps.items():
        values = volume.map(name)
        highest[name] = float(values.max())
        volume_files.write(path, values, volume.cut.volume, description=f"jaxvae {name}")
    record = {
        "name": scan.name,
        "source": sources(scan, "image", "brain"),
        "step": run.step,
        "maps": {name: path.name for name, path in maps.items()},
        "threshold": threshold,
        "warnings": list(volume.cut.warnings),
        "volume": {name: float(np.mean(values, dtype=np.float64)) for name, values in image_scores.items()},
        "highest": highest,
        "planes": list(volume.cut.slices.placement.planes),
        "slices": {name: [float(value) for value in values] for name, values in image_scores.items()},
    }
    files.write_json(done, record)
    seconds = (volume.seconds, float(volume.scores.seconds.sum()), time.perf_counter() - begin)
    return {"name": scan.name} | {stage: round(value, 3) for stage, value in zip(STAGES, seconds, strict=True)}
