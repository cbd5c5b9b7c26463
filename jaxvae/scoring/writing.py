"""Writing scored items in threads, while the next ones are scored."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.volumes import volume_files
from jaxvae.data.volumes.scans import Rejected, write_rejected
from jaxvae.errors import ArgumentError, InputError
from jaxvae.progress import Bar
from jaxvae.runs.config import EARLIER
from jaxvae.runs.run import Run, refuse_among_images
from jaxvae.scores import DEFAULT_MAPS, of_whole_images, per_pixel
from jaxvae.scoring.healthy_stats import Ranges


class MapSettings(NamedTuple):
    """Which maps of a folder are written, and how."""

    maps: Sequence[str] = DEFAULT_MAPS  # overlays and masks show the first
    threshold: float | None = None  # of the masks, for the first map; None writes no masks
    ranges: Ranges | None = None  # of the training images, for warnings; None if unknown
    batch_size: int | None = None
    format: Literal["npy", "tiff"] = "npy"  # of the maps of images

    @property
    def pixel_maps(self) -> tuple[str, ...]:
        """Those of the maps with one value per pixel."""
        return per_pixel(self.maps)

    @property
    def image_scores(self) -> tuple[str, ...]:
        """Those of the maps that are one number per image."""
        return of_whole_images(self.maps)


class Scored(NamedTuple):
    """A scored image or volume."""

    name: str
    path: Path
    warnings: Sequence[str]
    write: Callable[[], dict[str, Any]]  # writes its files and returns its record for the log


class Outcome(NamedTuple):
    """What was written into a folder of maps."""

    records: list[dict[str, Any]]  # one per image or volume that was written, as in the log
    skipped: int  # written before
    failed: list[Rejected]
    warnings: dict[str, list[str]]  # the names that each warning belongs to
    failures: Path  # the file that lists what failed
    notices: Sequence[str] = ()  # lines about the input folder


def write_each(
    results: Iterable[Scored | Rejected],
    *,
    log: Path,
    failures: Path,
    total: int,
    unit: str,
    ahead: int,
    skipped: int,
    rejected: Sequence[Rejected],
) -> Outcome:
    """Write each scored item in a thread, log it, and collect the failures.

    Args:
      results: scored items, and those that could not be scored.
      log, failures: JSONL files; the record of each item once its files are written, and path and reason of failures.
      total, unit: the number of items and their name, for the progress bar.
      ahead: scored items that may wait to be written.
      skipped, rejected: items that were written before, and failures from before.
    Raises:
      InputError: the folder cannot be written to, or the disk is full.
    """
    failed, records, warnings = list(rejected), [], defaultdict(list)
    waiting: deque[tuple[Scored, Future[dict[str, Any]]]] = deque()

    def finish_oldest() -> None:
        item, future = waiting.popleft()
        try:
            record = future.result()
        except InputError as error:
            if files.no_more_can_be_written(error):
                raise
            failed.append(Rejected(item.path, f"{item.path}: {error}"))
        else:
            files.append_lines(log, [record])
            records.append(record)
            for warning in item.warnings:
                warnings[warning].append(item.name)
        bar.update()

    try:
        with Bar(total=total, initial=skipped, unit=unit, desc="score") as bar, ThreadPoolExecutor(ahead) as pool:
            for result in results:
                if isinstance(result, Rejected):
                    failed.append(result)
                    bar.update()
                    continue
                waiting.append((result, pool.submit(result.write)))
                while len(waiting) >= ahead or (waiting and waiting[0][1].done()):
                    finish_oldest()
            while waiting:
                finish_oldest()
    finally:
        if failed or failures.is_file():
            write_rejected(failures, failed)
    return Outcome(records, skipped, failed, dict(warnings), failures)


def maps_folder(run: Run, folder: Path, out: Path | None) -> Path:
    """Where the maps of a folder or file are written: `out`, else RUN/scores/NAME.

    Raises:
      InputError: that is among the run's own images, the run itself, or inside `folder`.
    """
    source = folder.resolve()
    name = volume_files.stem(source) if volume_files.is_volume(source) else source.stem
    out = out or run.run_dir / "scores" / (source.name if source.is_dir() else name)
    refuse_among_images(run, out)
    if out.resolve() == run.run_dir.resolve():
        raise ArgumentError("out", out, "is the run itself; name a folder in it, or another place")
    if source.is_dir() and out.resolve().is_relative_to(source):
        raise ArgumentError(
            "out", out, f"is inside {folder}, so its results would be read as images; name a folder outside"
        )
    return out


def claim_maps_folder(out: Path, note: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Claim a folder for maps; returns its note if it was claimed before.

    Raises:
      InputError: it was claimed with other settings, or its note is damaged.
    """
    before = files.claim(out, note, settings, what="a folder of maps", beside_others=True)
    if before is not None:
        before = kinds.with_new_names(before)
        if before.get("folder") != settings.get("folder"):
            raise InputError(f"{out}: holds the maps of {before.get('folder')}; name another `out`")
        files.refuse_other_settings(
            out, EARLIER | files.flat(before), files.flat(settings), way_out="name another `out`"
        )
    return before
