"""Whole volumes, scored: read and cut, scored slice by slice, put back and written, all three at the same time.

OUT/.settings.json       the run and the maps; another run or other maps are refused
OUT/<name>_<map>.nii.gz  float32, on the scan's own grid
OUT/<name>.json          the scores of its slices and of the whole; written last, so that it says the volume is done
OUT/times.jsonl          one line a volume: seconds of reading, scoring and writing
OUT/failed.jsonl         the scans that could not be scored, with their reasons; both with the shard in their names

Batches are filled across volumes, and a slice's score does not depend on the batch it is in.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvae import files
from jaxvae.checkpoint import Run
from jaxvae.data import slices, volumes
from jaxvae.data.cache import Cut, read_scan
from jaxvae.data.scans import Rejected, Scan
from jaxvae.data.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.scores import score_batches

AHEAD = 2  # volumes that are read before they are needed, and as many that wait to be written
NO_VOXELS = np.empty((0, 0, 0), np.float32)


class SliceScores(NamedTuple):
    """The scores of K slices, on the host."""

    samples: dict[str, np.ndarray]  # [K] each: elbo, kl, nll
    maps: dict[str, np.ndarray]  # [K, S, S, 1] each, the mean over channels
    seconds: np.ndarray  # [K], what each took


@dataclass(frozen=True)
class VolumeScores:
    """The scores of one volume."""

    scan: Scan
    cut: Cut
    scores: SliceScores
    seconds: float  # of reading

    def volume(self, name: str) -> np.ndarray:
        """One of its maps on the scan's own grid, [X, Y, Z] in RAS order, 0 outside the brain."""
        return slices.put_back(self.scores.maps[name], self.cut.slices.placement, self.cut.brain)


def slicing_of(run: Run) -> Slicing:
    """How the volumes that a run was trained on were cut.

    Raises:
      InputError: it was not trained on volumes.
    """
    if run.config.get("volumes") is None:
        trained_on = Path(run.config["data"]["data"]).name
        raise InputError(
            f"the run was trained on {trained_on}, not on volumes; prepare some with `jaxvae prepare FOLDER --out "
            "PATH` and train on them"
        )
    return slices.from_config(run.config["volumes"]["slicing"])


def score_scans(
    run: Run,
    scans: Iterable[Scan],
    *,
    maps: Sequence[str],
    batch_size: int = 64,
    keep_voxels: bool = False,
) -> Iterator[VolumeScores | Rejected]:
    """Scores of scans in their order, each as soon as it is there; what cannot be read comes as `Rejected`.

    Args:
      run: trained on prepared volumes.
      maps: which maps of `scores.MAPS`.
      batch_size: slices at a time.
      keep_voxels: of the scans; otherwise they are dropped once cut, so that few volumes are in memory at a time.
    Raises:
      InputError: the run was not trained on volumes.
    """
    waiting: deque[tuple[Scan, Cut | Rejected, float]] = deque()
    pauses = [0.0]  # how long scoring had to wait for reading, since the last batch

    def images() -> Iterator[np.ndarray]:
        begin = time.perf_counter()
        for read in _read_ahead(scans, slicing_of(run), keep_voxels):
            pauses[0] += time.perf_counter() - begin
            waiting.append(read)
            if isinstance(read[1], Cut):
                yield read[1].slices.images
            begin = time.perf_counter()

    log_scale = run.config["hparams"]["log_scale"]
    batches = score_batches(
        run.model, run.params, images(), log_scale=log_scale, batch_size=batch_size, maps=tuple(maps)
    )
    scored: deque[SliceScores] = deque()
    begin = time.perf_counter()
    for batch in batches:
        count = len(batch.samples.elbo)
        took = time.perf_counter() - begin - pauses[0]
        means = {name: np.mean(values, axis=-1, keepdims=True) for name, values in batch.maps.items()}
        scored.append(SliceScores(batch.samples._asdict(), means, np.full(count, took / count)))
        yield from _finished(waiting, scored)
        begin, pauses[0] = time.perf_counter(), 0.0
    yield from _finished(waiting, scored)


def _read_ahead(
    scans: Iterable[Scan], slicing: Slicing, keep_voxels: bool
) -> Iterator[tuple[Scan, Cut | Rejected, float]]:
    """Each scan, cut or rejected, with the seconds it took; some are read while those before are used."""

    def read(scan: Scan) -> tuple[Scan, Cut | Rejected, float]:
        begin = time.perf_counter()
        try:
            cut = read_scan(scan, slicing)
        except InputError as error:
            return scan, Rejected(scan.image, str(error)), time.perf_counter() - begin
        if not keep_voxels:
            cut = replace(cut, volume=replace(cut.volume, voxels=NO_VOXELS))
        return scan, cut, time.perf_counter() - begin

    pool = ThreadPoolExecutor(2)
    try:
        ahead: deque[Future[tuple[Scan, Cut | Rejected, float]]] = deque()
        for scan in scans:
            ahead.append(pool.submit(read, scan))
            if len(ahead) == AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(
    waiting: deque[tuple[Scan, Cut | Rejected, float]], scored: deque[SliceScores]
) -> Iterator[VolumeScores | Rejected]:
    """The volumes at the head of the queue of which all slices are scored; those slices leave their queue."""
    while waiting:
        scan, cut, seconds = waiting[0]
        if isinstance(cut, Rejected):
            yield cut
        elif sum(len(part.seconds) for part in scored) >= len(cut.slices.images):
            yield VolumeScores(scan, cut, _take(scored, len(cut.slices.images)), seconds)
        else:
            return
        waiting.popleft()


def _take(scored: deque[SliceScores], count: int) -> SliceScores:
    """The scores of the first `count` slices."""
    taken: list[SliceScores] = []
    while count:
        part = scored.popleft()
        size = min(count, len(part.seconds))
        first, rest = (jax.tree.map(itemgetter(piece), part) for piece in (slice(size), slice(size, None)))
        taken.append(first)
        if len(rest.seconds):
            scored.appendleft(rest)
        count -= size
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *taken)


class Summary(NamedTuple):
    """What `write_scans` did."""

    written: int
    skipped: int  # had been written before
    failed: list[Rejected]
    seconds: dict[str, float]  # of reading, scoring and writing, summed over volumes; they overlap


def write_scans(
    run: Run,
    scans: Sequence[Scan],
    out: Path,
    *,
    maps: Sequence[str],
    batch_size: int = 64,
    shard: str = "",
    finished: Callable[[], object] = lambda: None,
) -> Summary:
    """Writes the maps of scans into a folder; goes on after a file that cannot be read, and from where it was killed.

    Args:
      shard: stands in the names of times.jsonl and failed.jsonl, of which each process that shares the folder has its
        own.
      finished: called for each scan, whether it was there, could be scored, or not.
    Raises:
      InputError: the folder holds maps of another run, other maps, or those of another scan with the same name; it
        cannot be written to.
    """
    _claim(run, out, maps)
    todo = [scan for scan in scans if not _is_done(out, scan)]
    for _ in range(len(scans) - len(todo)):
        finished()
    times, failures = (out / f"{name}{f'-{shard}' if shard else ''}.jsonl" for name in ("times", "failed"))
    failed: list[Rejected] = []
    seconds = {"read": 0.0, "score": 0.0, "write": 0.0}
    writing: deque[tuple[VolumeScores, Future[float]]] = deque()

    def finish() -> None:
        scores, future = writing.popleft()
        took = {"read": scores.seconds, "score": float(scores.scores.seconds.sum()), "write": future.result()}
        for stage, value in took.items():
            seconds[stage] += value
        with times.open("a") as log:
            log.write(json.dumps({"name": scores.scan.name} | {k: round(v, 3) for k, v in took.items()}) + "\n")
        finished()

    try:
        with ThreadPoolExecutor(2) as pool:
            for result in score_scans(run, todo, maps=maps, batch_size=batch_size):
                result = _refuse_infinite(result)
                if isinstance(result, Rejected):
                    failed.append(result)
                    finished()
                    continue
                writing.append((result, pool.submit(_write, run, out, result)))
                while len(writing) > AHEAD or (writing and writing[0][1].done()):
                    finish()
            while writing:
                finish()
    finally:
        if failed or failures.is_file():
            files.write_lines(failures, [{"path": str(one.path), "reason": one.reason} for one in failed])
    return Summary(len(todo) - len(failed), len(scans) - len(todo), failed, seconds)


def _claim(run: Run, out: Path, maps: Sequence[str]) -> None:
    """Writes what decides the maps into a new folder, or holds it against what is there."""
    settings: dict[str, Any] = {"maps": list(maps), "step": run.step, **run.config}
    path = out / ".settings.json"
    if not path.is_file():
        files.write_json(path, settings)
        return
    there = json.loads(path.read_bytes())
    changed = [name for name, value in settings.items() if there.get(name) != value]
    if changed:
        words = ", ".join(f"{name} {there.get(name)}, now {settings[name]}" for name in changed)
        raise InputError(f"{out}: holds maps made with {words}; name another --out")


def _is_done(out: Path, scan: Scan) -> bool:
    """Whether a scan's record is there, which is written last.

    Raises:
      InputError: it is the record of another scan, or was made with another brain mask.
    """
    path = out / f"{scan.name}.json"
    if not path.is_file():
        return False
    if json.loads(path.read_bytes())["source"] != _source(scan):
        raise InputError(f"{path}: holds the scores of another scan or brain mask of this name; name another --out")
    return True


def _source(scan: Scan) -> dict[str, list[Any] | None]:
    """What tells a scan's files from others: place, size and time of the last change."""
    paths = {"image": scan.image, "brain": scan.brain}
    return {
        kind: [str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] if path and path.exists() else None
        for kind, path in paths.items()
    }


def _refuse_infinite(result: VolumeScores | Rejected) -> VolumeScores | Rejected:
    if isinstance(result, VolumeScores):
        for name, values in {**result.scores.samples, **result.scores.maps}.items():
            if not np.isfinite(values).all():
                path = result.scan.image
                return Rejected(path, f"{path}: its {name} is NaN or infinite, so far is it from what was trained on")
    return result


def _write(run: Run, out: Path, scores: VolumeScores) -> float:
    """The files of one volume; the seconds they took."""
    begin = time.perf_counter()
    scan, samples = scores.scan, scores.scores.samples
    maps = {name: out / f"{scan.name}_{name}.nii.gz" for name in scores.scores.maps}
    for path in (*maps.values(), out / f"{scan.name}.json"):
        files.clear_parts(path)
    highest = {}
    for name, path in maps.items():
        values = scores.volume(name)
        highest[name] = float(values.max())
        volumes.write(path, values, scores.cut.volume, description=f"jaxvae {name}")
    record = {
        "name": scan.name,
        "source": _source(scan),
        "step": run.step,
        "maps": {name: path.name for name, path in maps.items()},
        "warnings": list(scores.cut.warnings),
        "volume": {name: float(np.mean(values, dtype=np.float64)) for name, values in samples.items()},
        "highest": highest,
        "planes": list(scores.cut.slices.placement.planes),
        "slices": {name: [float(value) for value in values] for name, values in samples.items()},
    }
    files.write_json(out / f"{scan.name}.json", record)
    return time.perf_counter() - begin
