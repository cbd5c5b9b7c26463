"""Maps of volumes in a folder: scored, put back and written at the same time, continued where it was stopped.

OUT/.settings.json       the run and the maps; another run or other maps are refused
OUT/<name>_<map>.nii.gz  float32, on the scan's own grid
OUT/<name>_mask.nii.gz   uint8, 1 where the first map reaches the threshold, if there is one
OUT/<name>.json          the scores of its slices and of the whole; written last, so that it says the volume is done
OUT/times.jsonl          one line a volume: seconds of reading, scoring and writing
OUT/failed.jsonl         the scans that could not be scored, with their reasons; both with the shard in their names
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data.volumes import volume_files
from jaxvae.data.volumes.scans import Rejected, Scan, sources, write_rejected
from jaxvae.errors import InputError
from jaxvae.evaluation import thresholds
from jaxvae.runs.checkpoint import Run
from jaxvae.scores.batches import BATCH
from jaxvae.scoring import results
from jaxvae.scoring.volume_scores import AHEAD, VolumeScores, score_scans


class Summary(NamedTuple):
    """What `write_scans` did."""

    written: int
    skipped: int  # had been written before
    failed: list[Rejected]
    seconds: dict[str, float]  # of reading, scoring and writing, summed over volumes; they overlap
    warnings: Counter[str]  # of the volumes that were written


def write_scans(
    run: Run,
    scans: Sequence[Scan],
    out: Path,
    *,
    maps: Sequence[str],
    threshold: float | None = None,
    batch_size: int = BATCH,
    rejected: Sequence[Rejected] = (),
    shard: str = "",
    ranges: dict[str, list[float]] | None = None,
    finished: Callable[[], object] = lambda: None,
) -> Summary:
    """Writes the maps of scans into a folder; goes on after a file that cannot be read, and from where it was killed.

    Args:
      threshold: of a mask from the first map; with another one than before, a scan is done again.
      rejected: scans that cannot be scored, for the record.
      shard: stands in the names of times.jsonl and failed.jsonl, of which each process that shares the folder has its
        own.
      ranges: of the training slices, `thresholds.ranges_of`; None if nobody knows.
      finished: called for each scan, whether it was there, could be scored, or not.
    Raises:
      InputError: the folder holds maps of another run, or other maps; it cannot be written to, or its disk is full.
    """
    _claim(run, out, maps)
    todo, others = _missing(out, scans, threshold)
    warnings: Counter[str] = Counter()
    if again := sum(files.below(out, f"{scan.name}.json").is_file() for scan in todo):
        warnings["was done again: one of its files was gone, or the threshold is another"] = again
    failed = [*rejected, *others]
    for _ in range(len(scans) - len(todo)):
        finished()
    times, failures = (out / f"{name}{f'-{shard}' if shard else ''}.jsonl" for name in ("times", "failed"))
    seconds = {"read": 0.0, "score": 0.0, "write": 0.0}
    written = 0
    writing: deque[tuple[VolumeScores, Future[float]]] = deque()

    def finish() -> None:
        nonlocal written
        scores, future = writing.popleft()
        try:
            took = {"read": scores.seconds, "score": float(scores.scores.seconds.sum()), "write": future.result()}
        except InputError as error:
            if files.no_more_can_be_written(error):
                raise
            failed.append(Rejected(scores.scan.image, f"{scores.scan.image}: {error}"))
        else:
            written += 1
            warnings.update(scores.cut.warnings)
            if ranges is not None and thresholds.unlike(ranges, scores.cut.slices.images).mean() > 0.5:
                warnings["most slices have values far outside the range of the training slices"] += 1
            for stage, value in took.items():
                seconds[stage] += value
            files.append_lines(times, [{"name": scores.scan.name} | {k: round(v, 3) for k, v in took.items()}])
        finished()

    try:
        with ThreadPoolExecutor(2) as pool:
            for result in score_scans(run, todo, maps=maps, batch_size=batch_size):
                result = _refuse_infinite(result)
                if isinstance(result, Rejected):
                    failed.append(result)
                    finished()
                    continue
                writing.append((result, pool.submit(_write, run, out, result, maps[0], threshold)))
                while len(writing) == AHEAD or (writing and writing[0][1].done()):
                    finish()
            while writing:
                finish()
    finally:
        if failed or failures.is_file():
            write_rejected(failures, failed)
    return Summary(written, len(scans) - len(todo) - len(others), failed, seconds, warnings)


def _claim(run: Run, out: Path, maps: Sequence[str]) -> None:
    """Writes what decides the maps into a new folder, or holds it against what is there."""
    settings: dict[str, Any] = {"maps": list(maps), "step": run.step, **run.config}
    note = out / ".settings.json"
    results.refuse_other_maps(note, settings)
    if not note.is_file():
        files.write_json(note, settings)


def _missing(out: Path, scans: Sequence[Scan], threshold: float | None) -> tuple[list[Scan], list[Rejected]]:
    """The scans that are not done yet, and those whose name another scan has taken."""
    todo, others = [], []
    for scan in scans:
        try:
            if not _is_done(out, scan, threshold):
                todo.append(scan)
        except InputError as error:
            others.append(Rejected(scan.image, str(error)))
    return todo, others


def _is_done(out: Path, scan: Scan, threshold: float | None) -> bool:
    """Whether a scan's files and its record are there, with the same threshold.

    Raises:
      InputError: it is the record of another scan, or was made with another brain mask.
    """
    path = files.below(out, f"{scan.name}.json")
    if not path.is_file():
        return False
    try:
        record = files.read_json(path, {"source": object, "maps": dict})
        source, there = record["source"], [path.parent / name for name in record["maps"].values()]
    except (InputError, TypeError):
        return False  # Damaged, as after a loss of power: it is done again.
    if source != sources(scan, "image", "brain"):
        raise InputError(f"{path}: holds the scores of another scan or brain mask of this name; name another --out")
    there += [] if threshold is None else [files.below(out, f"{scan.name}_mask.nii.gz")]
    return record.get("threshold") == threshold and all(place.is_file() for place in there)


def _refuse_infinite(result: VolumeScores | Rejected) -> VolumeScores | Rejected:
    if isinstance(result, VolumeScores):
        for name, values in {**result.scores.samples, **result.scores.maps}.items():
            if not np.isfinite(values).all():
                path = result.scan.image
                return Rejected(path, f"{path}: its {name} is NaN or infinite, so far is it from what was trained on")
    return result


def _write(run: Run, out: Path, scores: VolumeScores, first: str, threshold: float | None) -> float:
    """The files of one volume; the seconds they took."""
    begin = time.perf_counter()
    scan, samples = scores.scan, scores.scores.samples
    maps = {name: files.below(out, f"{scan.name}_{name}.nii.gz") for name in scores.scores.maps}
    mask, done = (files.below(out, f"{scan.name}{ending}") for ending in ("_mask.nii.gz", ".json"))
    for path in (*maps.values(), mask, done):
        files.clear_parts(path)
    done.unlink(missing_ok=True)  # Until all is there again, the record of what was there before would be untrue.
    mask.unlink(missing_ok=True)
    if threshold is not None:
        found = (scores.volume(first) >= threshold) & scores.cut.brain
        volume_files.write(mask, found, scores.cut.volume, description="jaxvae mask")
    highest = {}
    for name, path in maps.items():
        values = scores.volume(name)
        highest[name] = float(values.max())
        volume_files.write(path, values, scores.cut.volume, description=f"jaxvae {name}")
    record = {
        "name": scan.name,
        "source": sources(scan, "image", "brain"),
        "step": run.step,
        "maps": {name: path.name for name, path in maps.items()},
        "threshold": threshold,
        "warnings": list(scores.cut.warnings),
        "volume": {name: float(np.mean(values, dtype=np.float64)) for name, values in samples.items()},
        "highest": highest,
        "planes": list(scores.cut.slices.placement.planes),
        "slices": {name: [float(value) for value in values] for name, values in samples.items()},
    }
    files.write_json(done, record)
    return time.perf_counter() - begin
