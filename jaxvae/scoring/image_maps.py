"""Maps of image files in a folder: scored, put back on each image's own grid, continued where it was stopped.

OUT/images.json           the run and the folder, of which another is refused; the threshold and the overlays' scale
OUT/<name>_<map>.npy      float32, of the height and width of the image file; or .tiff
OUT/<name>_overlay.png    the first map laid over the image, and
OUT/<name>_mask.png       where it reaches the threshold, if there is one
OUT/samples.jsonl         one line per image, written once its files are there: name, elbo, kl, nll, its file, and
                          `exif_orientation` if the image was turned by it
OUT/failed.jsonl          the images that could not be scored, with their reasons
OUT/left_out.jsonl        the files of the folder that are not scored, such as masks, with their reasons
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxvae import files
from jaxvae.data.budget import Budget
from jaxvae.data.images.image_files import orientation, read, size, write_map, write_png
from jaxvae.data.images.layouts import Entry
from jaxvae.data.images.loading import MEMORY, bytes_to_prepare, read_prepared
from jaxvae.data.images.preparation import Preparation
from jaxvae.data.normalization import as_float
from jaxvae.data.resampling import on_grid
from jaxvae.data.volumes.scans import Rejected, write_rejected
from jaxvae.errors import InputError
from jaxvae.evaluation import thresholds
from jaxvae.runs.checkpoint import Run
from jaxvae.scores.batches import BATCH
from jaxvae.scoring import results
from jaxvae.scoring.overlay import overlay
from jaxvae.scoring.results import SAMPLES, Scored

MAP_BYTES = 2**26  # Of maps that are held before they are written.


class Summary(NamedTuple):
    """What `write_images` did."""

    written: int
    skipped: int  # had been written before
    failed: list[Rejected]
    unlike: int  # of those written: with values far outside the range of the training images


class Files(NamedTuple):
    """Which files an image gets."""

    maps: Sequence[str]
    format: Literal["npy", "tiff"] = "npy"
    threshold: float | None = None  # of the mask; None: there is none

    def of(self, out: Path, entry: Entry) -> dict[str, Path]:
        """Their places, by map, `overlay` and `mask`, which is there or not."""
        stem = str(files.below(out, entry.name).with_suffix(""))
        places = {name: Path(f"{stem}_{name}.{self.format}") for name in self.maps}
        return places | {name: Path(f"{stem}_{name}.png") for name in ("overlay", "mask")}


def write_images(
    run: Run,
    entries: Sequence[Entry],
    out: Path,
    wanted: Files,
    *,
    preparation: Preparation,
    settings: dict[str, Any],
    left_out: Sequence[dict[str, str]] = (),
    batch_size: int = BATCH,
    ranges: dict[str, list[float]] | None = None,
    finished: Callable[[int], object] = lambda count: None,
) -> Summary:
    """Writes the maps of image files into a folder; leaves out what cannot be scored, goes on where it was killed.

    An image is scored again where its file is another than it was, and all of them where another map is to be shown or
    another threshold.

    Args:
      entries: the images, their names different without suffix.
      wanted: the files of each.
      preparation: as the run's own images were prepared.
      settings: what decides the scores; a folder that holds others' is refused.
      left_out: path and reason of the other files of the folder.
      ranges: of the training images, `thresholds.ranges_of`; None if nobody knows.
      finished: called with how many more images are done, or left out.
    Raises:
      InputError: the folder holds other maps or cannot be written to, or no image at all can be scored.
    """
    # Alone, since another process would remove what this one is writing.
    budget = Budget(MEMORY)
    with files.locked(out), ThreadPoolExecutor() as pool:
        note, done = _note(out, settings, wanted)
        there = {record["name"]: record for record in done}
        todo = [entry for entry in entries if not _is_done(entry, there.get(entry.name), out, wanted)]
        failed: list[Rejected] = []
        unlike = 0
        finished(len(entries) - len(todo))
        samples = out / "samples.jsonl"
        if samples.is_file():
            files.clear_all_parts(out)
            files.write_lines(samples, done)  # Without the half line that a killed process may have left.
        for chunk in _chunks(todo, run, wanted):
            # Before they are read, so that a file that changes meanwhile is noticed.
            sources = {entry.name: _source(entry) for entry in chunk}
            kept, scored, rejected, far = _scored(
                run, chunk, pool, budget, preparation, wanted.maps, batch_size, ranges
            )
            failed += rejected
            unlike += far
            finished(len(rejected))
            for entry in chunk:
                there.pop(entry.name, None)
            if not kept:
                continue
            note = _begun(out, note, scored, wanted)
            write = partial(_write, out=out, wanted=wanted, high=note["full_colour"], budget=budget)
            maps = ({name: values[i] for name, values in scored.maps.items()} for i in range(len(kept)))
            for i, (entry, problem) in enumerate(zip(kept, pool.map(write, kept, maps), strict=True)):
                if problem is None:
                    samples_of = {score: float(scored.samples[score][i]) for score in SAMPLES}
                    turned = orientation(entry.path)
                    there[entry.name] = {"name": entry.name, **samples_of, "source": sources[entry.name]}
                    there[entry.name] |= {"exif_orientation": turned} if turned != 1 else {}
                    files.append_lines(samples, [there[entry.name]])
                else:
                    failed.append(problem)
                finished(1)
        if there or samples.is_file():
            files.write_lines(samples, [there[entry.name] for entry in entries if entry.name in there])
            if failed or (out / "failed.jsonl").is_file():
                write_rejected(out / "failed.jsonl", failed)
            if left_out or (out / "left_out.jsonl").is_file():
                files.write_lines(out / "left_out.jsonl", list(left_out))
        if failed and not there:
            raise InputError(failed[0].reason)
        return Summary(len(todo) - len(failed), len(entries) - len(todo), failed, unlike)


def _note(out: Path, settings: dict[str, Any], wanted: Files) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What images.json says, or is to say, and the lines of the images that are done."""
    path = out / "images.json"
    results.refuse_other_maps(path, settings)
    settings = {**settings, "shown": wanted.maps[0], "threshold": wanted.threshold}
    there = files.read_json(path, {"full_colour?": int | float}) if path.is_file() else {}
    if any(there.get(name) != value for name, value in settings.items()) or "full_colour" not in there:
        return settings, []
    try:
        records = files.read_lines(out / "samples.jsonl", {"name": str})
        return there, [record for record in records if {*record} - {"exif_orientation"} == {"name", *SAMPLES, "source"}]
    except InputError:
        return there, []  # Damaged, as after a loss of power: all are scored again.


def _is_done(entry: Entry, record: dict[str, Any] | None, out: Path, wanted: Files) -> bool:
    """Whether all files of an image are there, made of the file that it still is."""
    if record is None or record["source"] != _source(entry):
        return False
    places = wanted.of(out, entry)
    return all(place.is_file() for name, place in places.items() if name != "mask" or wanted.threshold is not None)


def _source(entry: Entry) -> list[Any] | None:
    """What tells an image's file from others; None where it has gone, which reading it will say."""
    try:
        return files.identity(entry.path)
    except OSError:
        return None


def _chunks(entries: Sequence[Entry], run: Run, wanted: Files) -> Iterator[Sequence[Entry]]:
    height, width, _ = run.model.image_shape
    size = max(1, MAP_BYTES // (4 * height * width * (1 + len(wanted.maps))))
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _scored(
    run: Run,
    entries: Sequence[Entry],
    pool: ThreadPoolExecutor,
    budget: Budget,
    preparation: Preparation,
    maps: Sequence[str],
    batch_size: int,
    ranges: dict[str, list[float]] | None,
) -> tuple[list[Entry], Scored, list[Rejected], int]:
    """Those of the images that can be scored, their scores, the others, and how many are unlike the training images."""

    def taken(entry: Entry) -> np.ndarray | Rejected:
        try:
            with budget.reserve(bytes_to_prepare(entry.path, preparation)):
                image = read_prepared(entry.path, preparation)
            results.check_shape(run, image[None], str(entry.path))
        except InputError as error:
            return Rejected(entry.path, str(error))
        return as_float(image)

    read_ones = list(zip(entries, pool.map(taken, entries), strict=True))
    failed = [image for _, image in read_ones if isinstance(image, Rejected)]
    kept = [entry for entry, image in read_ones if not isinstance(image, Rejected)]
    images = [image for _, image in read_ones if not isinstance(image, Rejected)]
    stack = np.stack(images) if images else np.empty((0, *run.model.image_shape), np.float32)
    scored = results.score_as_trained(run, stack, maps=maps, batch_size=batch_size)
    finite, reasons = results.finite(scored, [str(entry.path) for entry in kept])
    failed += [Rejected(kept[i].path, reason) for i, reason in reasons.items()]
    unlike = 0 if ranges is None else int(thresholds.unlike(ranges, stack[finite]).sum())
    return [entry for entry, one in zip(kept, finite, strict=True) if one], results.take(scored, finite), failed, unlike


def _begun(out: Path, note: dict[str, Any], scored: Scored, wanted: Files) -> dict[str, Any]:
    """The note with the value of full colour, in the folder: twice the threshold, else what the first images reach."""
    if "full_colour" not in note:
        high = 2 * (wanted.threshold or 0.0)
        high = high if high > 0 else float(np.quantile(scored.maps[wanted.maps[0]], 0.995))
        note = {**note, "full_colour": high if high > 0 else 1.0}
        files.write_lines(out / "samples.jsonl", [])
        files.write_json(out / "images.json", note)
    return note


def _write(
    entry: Entry, maps: dict[str, np.ndarray], *, out: Path, wanted: Files, high: float, budget: Budget
) -> Rejected | None:
    """The files of one image; why not, where they cannot be made and those of others may."""
    try:
        places = wanted.of(out, entry)
        with budget.reserve(size(entry.path).bytes_to_show):
            image = read(entry.path)
            first, *others = wanted.maps
            for name in others:  # One at a time, since a map of a photograph is large.
                write_map(places[name], on_grid(maps[name], image.shape[:2]))
            shown = on_grid(maps[first], image.shape[:2])
            write_map(places[first], shown)
            write_png(places["overlay"], overlay(image, shown, high=high))
            places["mask"].unlink(missing_ok=True)  # It may be of another threshold.
            if wanted.threshold is not None:
                write_png(places["mask"], (shown >= wanted.threshold).astype(np.uint8) * 255)
    except InputError as error:
        if files.no_more_can_be_written(error):
            raise
        return Rejected(entry.path, f"{entry.path}: {error}")
    return None
