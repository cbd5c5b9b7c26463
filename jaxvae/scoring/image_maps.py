"""Maps of the image files in a folder, each on its image's own grid.

A stopped call can be continued.

OUT/images.json           the run and the folder, the threshold, and the scale of the overlays
OUT/<name>_<map>.npy      float32, with the height and width of the image file; or .tiff
OUT/<name>_overlay.png    the first map laid over the image
OUT/<name>_mask.png       where the first map reaches the threshold, if there is one
OUT/samples.jsonl         one line per image, written after its files: name, elbo, kl, nll, its file, and
                          `exif_orientation` if the image was turned by it
OUT/failed.jsonl          the images that could not be scored, with their reasons
OUT/left_out.jsonl        the files of the folder that are not scored, such as masks, with their reasons
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import files
from jaxvae.data import kinds
from jaxvae.data.budget import Budget
from jaxvae.data.images import folders
from jaxvae.data.images.image_files import orientation, read, size, write_map, write_png
from jaxvae.data.images.layouts import Entry
from jaxvae.data.images.loading import MEMORY, bytes_to_prepare, read_prepared
from jaxvae.data.normalization import as_float
from jaxvae.data.resampling import on_grid
from jaxvae.data.volumes.scans import Rejected
from jaxvae.errors import InputError
from jaxvae.runs.fitting import fit_scores
from jaxvae.runs.run import Run
from jaxvae.runs.run_scores import check_shape, finite_rows, score_prepared
from jaxvae.scores import IMAGE_SCORES
from jaxvae.scoring.healthy_stats import FAR, outside_ranges
from jaxvae.scoring.overlay import overlay
from jaxvae.scoring.writing import MapSettings, Outcome, Scored, claim_maps_folder, maps_folder, write_each

Record = dict[str, Any]

NOTE = "images.json"
MAP_BYTES = 2**26  # maps that are scored before they are written
AHEAD = 16  # images that wait to be written


def score_image_folder(run: Run, folder: Path, out: Path | None, wanted: MapSettings) -> tuple[Path, Outcome]:
    """Write the maps of all images in a folder: `jaxvae score RUN FOLDER`.

    Images that are written already are skipped. An image is scored again if its file has changed; all are if the first
    map or the threshold differs.

    Returns:
      The output folder, which is RUN/scores/NAME if `out` is None; and what was written.

    Raises:
      InputError: two images have the same name without suffix, the output folder holds other maps or cannot be written
        to, or no image at all can be scored.
    """
    out = maps_folder(run, folder, out)
    entries, left_out = folders.unlabelled(folder)
    fit_scores(run, wanted.maps)
    stems: dict[Path, str] = {}
    for entry in entries:
        other = stems.setdefault(Path(entry.name).with_suffix(""), entry.name)
        if other != entry.name:
            problem = f"its maps would have the same names as those of {other}; rename one of them"
            raise InputError(f"{entry.name}: {problem}")
    settings = {"folder": str(folder.resolve()), "step": run.step, **run.config}
    outcome = _write_images(run, entries, out, wanted, settings)
    if left_out or (out / "left_out.jsonl").is_file():
        files.write_lines(out / "left_out.jsonl", folders.records(left_out))
    notices = [f"{folders.summary(left_out)}; left_out.jsonl lists them"] if left_out else []
    return out, outcome._replace(notices=notices)


def _write_images(run: Run, entries: Sequence[Entry], out: Path, wanted: MapSettings, settings: Record) -> Outcome:
    """Write the maps of the images that are not done yet; a folder with other settings is refused."""
    log, failures = out / "samples.jsonl", out / "failed.jsonl"
    # Locked, since another process would remove what this one is writing.
    with files.locked(out):
        note, records = _claim(out, settings, wanted)
        done = {entry.name: records[entry.name] for entry in entries if _is_done(entry, records, out, wanted)}
        todo = [entry for entry in entries if entry.name not in done]
        if log.is_file():
            files.clear_all_parts(out)
            files.write_lines(log, [*done.values()])  # A killed process may have left half a line.

        def full_colour(maps: np.ndarray) -> float:
            """Twice the threshold, else a high quantile of the first images' maps.

            It is noted for all later images.
            """
            if "full_colour" not in note:
                highs = (2 * (wanted.threshold or 0.0), float(np.quantile(maps, 0.995)), 1.0)
                note["full_colour"] = next(high for high in highs if high > 0)
                files.write_lines(log, [])
                files.write_json(out / NOTE, note)
            return note["full_colour"]

        results = _score_each(run, todo, out, wanted, full_colour)
        counts = {"total": len(entries), "skipped": len(done), "ahead": AHEAD}
        outcome = write_each(results, log=log, failures=failures, unit="image", rejected=(), **counts)
        done |= {record["name"]: record for record in outcome.records}
        if log.is_file():
            files.write_lines(log, [done[entry.name] for entry in entries if entry.name in done])
        else:
            for path in (failures, out / NOTE):
                path.unlink(missing_ok=True)
        if outcome.failed and not done:
            raise InputError(outcome.failed[0].reason)
        return outcome


def _claim(out: Path, settings: Record, wanted: MapSettings) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Claim the folder. Returns images.json, and the records of the images that may be done, by name."""
    note = claim_maps_folder(out, NOTE, settings) or {}
    settings = {**settings, "shown": wanted.pixel_maps[0], "threshold": wanted.threshold}
    same = all(note.get(name) == value for name, value in settings.items())
    if not same or not isinstance(note.get("full_colour"), int | float):
        return settings, {}
    try:
        records = files.read_lines(out / "samples.jsonl", {"name": str})
    except InputError:
        return note, {}  # Damaged, as after a loss of power: all images are scored again.
    expected = {"name", *IMAGE_SCORES, *wanted.image_scores, "source"}
    return note, {record["name"]: record for record in records if {*record} - {"exif_orientation"} == expected}


def _is_done(entry: Entry, records: dict[str, Record], out: Path, wanted: MapSettings) -> bool:
    """Whether all files of an image are written, and its own file has not changed since."""
    if entry.name not in records or records[entry.name]["source"] != _source(entry):
        return False
    paths = _paths(out, entry.name, wanted)
    return all(path.is_file() for name, path in paths.items() if name != "mask" or wanted.threshold is not None)


def _paths(out: Path, name: str, wanted: MapSettings) -> dict[str, Path]:
    """The path of each map of an image, of its `overlay` and of its `mask`; the files may be missing."""
    stem = str(files.below(out, name).with_suffix(""))
    maps = {map_name: Path(f"{stem}_{map_name}.{wanted.format}") for map_name in wanted.pixel_maps}
    return maps | {picture: Path(f"{stem}_{picture}.png") for picture in ("overlay", "mask")}


def _source(entry: Entry) -> list[Any] | None:
    """`files.identity` of an image's file; None if the file is gone, which reading it will report."""
    try:
        return files.identity(entry.path)
    except OSError:
        return None


def _chunks(entries: Sequence[Entry], run: Run, maps: Sequence[str]) -> Iterator[Sequence[Entry]]:
    height, width, _ = run.model.image_shape
    size = max(1, MAP_BYTES // (4 * height * width * (1 + len(maps))))
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _score_each(
    run: Run, entries: Sequence[Entry], out: Path, wanted: MapSettings, full_colour: Callable[[np.ndarray], float]
) -> Iterator[Scored | Rejected]:
    """The scores of each image, chunk by chunk; images that cannot be scored come as `Rejected`."""
    maps, preparation, budget = wanted.maps, kinds.preparation(run.source), Budget(MEMORY)
    write = partial(_write, out, wanted, budget)

    def read_one(entry: Entry) -> tuple[Entry, list[Any] | None, np.ndarray] | Rejected:
        source = _source(entry)  # Before the file is read, so that a change meanwhile is noticed.
        try:
            with budget.reserve(bytes_to_prepare(entry.path, preparation)):
                image = read_prepared(entry.path, preparation)
            check_shape(run, image[None], str(entry.path))
        except InputError as error:
            return Rejected(entry.path, str(error))
        return entry, source, as_float(image)

    with ThreadPoolExecutor() as pool:
        for chunk in _chunks(entries, run, maps):
            results = list(pool.map(read_one, chunk))
            yield from (result for result in results if isinstance(result, Rejected))
            readable = [result for result in results if not isinstance(result, Rejected)]
            if not readable:
                continue
            stack = np.stack([image for _, _, image in readable])
            scores = score_prepared(run, stack, maps=maps, batch_size=wanted.batch_size)
            every_score = {**scores.image_scores, **scores.maps}
            finite, reasons = finite_rows(every_score, [str(entry.path) for entry, _, _ in readable])
            yield from (Rejected(readable[i][0].path, reason) for i, reason in reasons.items())
            if not finite.any():
                continue
            high = full_colour(scores.maps[wanted.pixel_maps[0]][finite])
            far = outside_ranges(wanted.ranges, stack) if wanted.ranges else np.zeros(len(stack), bool)
            for i in np.flatnonzero(finite):
                entry, source, _ = readable[i]
                own_maps = {name: values[i] for name, values in scores.maps.items()}
                numbers = {name: float(values[i]) for name, values in scores.image_scores.items()}
                record = {"name": entry.name, **numbers, "source": source}
                write_one = partial(write, entry.path, own_maps, record, high)
                yield Scored(entry.name, entry.path, (FAR,) if far[i] else (), write_one)


def _write(
    out: Path, wanted: MapSettings, budget: Budget, path: Path, maps: dict[str, np.ndarray], record: Record, high: float
) -> Record:
    """Write the files of one image from its maps [h, w, 1]; returns its line of samples.jsonl.

    Args:
      high: the value of the first map that the overlay draws in full colour.
    """
    paths = _paths(out, record["name"], wanted)
    with budget.reserve(size(path).bytes_to_show):
        image = read(path)
        first, *others = wanted.pixel_maps
        for name in others:  # One at a time, since a map of a photograph is large.
            write_map(paths[name], on_grid(maps[name], image.shape[:2]))
        shown = on_grid(maps[first], image.shape[:2])
        write_map(paths[first], shown)
        write_png(paths["overlay"], overlay(image, shown, high=high))
        paths["mask"].unlink(missing_ok=True)  # It may belong to another threshold.
        if wanted.threshold is not None:
            write_png(paths["mask"], (shown >= wanted.threshold).astype(np.uint8) * 255)
    turned = orientation(path)
    return record | ({"exif_orientation": turned} if turned != 1 else {})
