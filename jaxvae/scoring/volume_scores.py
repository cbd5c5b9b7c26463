"""Scores of whole volumes: cut ahead of time, scored slice by slice.

Batches are filled across volumes. The score of a slice does not depend on its batch.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxvae.data import kinds
from jaxvae.data.volumes import slices
from jaxvae.data.volumes.prepared_scan import PreparedScan, read_scan
from jaxvae.data.volumes.scans import Rejected, Scan
from jaxvae.data.volumes.slices import Slicing
from jaxvae.errors import InputError
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import batch_settings, with_kl_of
from jaxvae.scores.batches import score_batches

AHEAD = 2  # volumes that are read before they are needed, and volumes that wait to be written
Read = tuple[Scan, PreparedScan | Rejected, float]  # a scan, cut or rejected, and the seconds to read it
NO_VOXELS = np.empty((0, 0, 0), np.float32)


class SliceScores(NamedTuple):
    """The scores of K slices, on the host."""

    image_scores: dict[str, np.ndarray]  # [K] each: elbo, kl, nll
    maps: dict[str, np.ndarray]  # [K, S, S, 1] each, the mean over channels
    seconds: np.ndarray  # [K], the time to score each


class VolumeScores(NamedTuple):
    """The scores of one volume."""

    scan: Scan
    cut: PreparedScan
    scores: SliceScores
    seconds: float  # the time to read it

    def map(self, name: str) -> np.ndarray:
        """A map on the scan's own grid, [X, Y, Z] in RAS order, 0 outside the brain."""
        return slices.put_back(self.scores.maps[name], self.cut.slices.placement, self.cut.brain)


def slicing_of(run: Run) -> Slicing:
    """How the training volumes of a run were cut into slices.

    Raises:
      InputError: the run was not trained on volumes.
    """
    if run.kind is not kinds.VOLUMES:
        problem = f"was trained on {Path(run.config['data']['data']).name}, not on volumes"
        raise InputError(f"{run.run_dir}: {problem}; give a run that was trained on prepared volumes")
    return slices.from_config(run.config["volumes"]["slicing"])


def score_scans(
    run: Run, scans: Iterable[Scan], *, maps: Sequence[str], batch_size: int | None = None, keep_voxels: bool = False
) -> Iterator[VolumeScores | Rejected]:
    """The scores of scans, each as soon as it is complete, in order.

    Unreadable scans come as `Rejected`.

    Args:
      run: trained on prepared volumes.
      maps: names of `scores.known_maps`.
      batch_size: slices at a time, on each device of this process.
      keep_voxels: return the voxels of each scan too; otherwise they are dropped early, which saves memory.
    Raises:
      InputError: the run was not trained on volumes, or does not have a score.
    """
    waiting: deque[Read] = deque()
    pauses = [0.0]  # seconds that scoring waited for reading since the last batch

    def images() -> Iterator[np.ndarray]:
        begin = time.perf_counter()
        for read in _read_ahead(scans, slicing_of(run), keep_voxels):
            pauses[0] += time.perf_counter() - begin
            waiting.append(read)
            if isinstance(read[1], PreparedScan):
                yield read[1].slices.images
            begin = time.perf_counter()

    settings = batch_settings(run, maps)
    batches = score_batches(run.model, run.params, images(), batch_size=batch_size, **settings)
    scored: deque[SliceScores] = deque()
    begin = time.perf_counter()
    for batch in batches:
        count = len(batch.samples.elbo)
        took = time.perf_counter() - begin - pauses[0]
        means = {name: np.mean(values, axis=-1, keepdims=True) for name, values in batch.maps.items()}
        image_scores = with_kl_of(run, batch.image_scores)
        scored.append(SliceScores(image_scores, means, np.full(count, took / count)))
        yield from _finished(waiting, scored)
        begin, pauses[0] = time.perf_counter(), 0.0
    yield from _finished(waiting, scored)


def _read_ahead(scans: Iterable[Scan], slicing: Slicing, keep_voxels: bool) -> Iterator[Read]:
    """Read scans in threads, ahead of their use."""

    def read(scan: Scan) -> Read:
        begin = time.perf_counter()
        try:
            cut = read_scan(scan, slicing)
            if not keep_voxels:
                cut = replace(cut, volume=replace(cut.volume, voxels=NO_VOXELS))
        except InputError as error:
            cut = Rejected(scan.image, str(error))
        return scan, cut, time.perf_counter() - begin

    pool = ThreadPoolExecutor(2)
    try:
        ahead: deque[Future[Read]] = deque()
        for scan in scans:
            ahead.append(pool.submit(read, scan))
            if len(ahead) == AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _finished(waiting: deque[Read], scored: deque[SliceScores]) -> Iterator[VolumeScores | Rejected]:
    """Take the volumes whose slices are all scored from the head of the queue, and their slices from theirs."""
    while waiting:
        scan, cut, seconds = waiting[0]
        if isinstance(cut, Rejected):
            yield cut
        elif sum(len(part.seconds) for part in scored) >= len(cut.slices.images):
            yield VolumeScores(scan, cut, _take_slices(scored, len(cut.slices.images)), seconds)
        else:
            return
        waiting.popleft()


def _take_slices(scored: deque[SliceScores], count: int) -> SliceScores:
    """Take the scores of the first `count` slices from the queue."""
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
