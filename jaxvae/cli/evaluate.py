"""`jaxvae evaluate`: how well a run finds what is known to be wrong in its test images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import from_config, open_splits
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.checkpoint import Run
    from jaxvae.data.cache import Cache
    from jaxvae.data.dataset import Dataset


@dataclass(frozen=True)
class Evaluate:
    """Hold a run's scores against what is known of its test images.

    Writes the scores of its test images, and evaluation.json; prints the tables.
    A run on volumes can be held against other prepared volumes too.
    """

    run: flags.Run
    """the run folder"""
    volumes: Annotated[Path | None, tyro.conf.Positional, flags.optional("[VOLUMES]", "the run's own test")] = None
    """other prepared volumes, with lesions; the results are those of RUN/on/NAME"""
    resamples: int = 1000
    """bootstrap resamples for the 95 % intervals; 0 leaves them out"""
    median: int = 5
    """volumes only: edge in voxels of the median filter of the post-processed table; 0 leaves that table out"""
    components: int = 8
    """volumes only: in that table, predicted components of fewer voxels are removed"""
    background: bool = False
    """volumes only: one more table that counts every voxel of a scan, outside the brain too"""

    def execute(self) -> None:
        for name in ("resamples", "median", "components"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} {getattr(self, name)}: must not be below 0")
        if self.median and self.median % 2 == 0:
            raise InputError(f"--median {self.median}: must be odd, or 0")
        from jaxvae import checkpoint, files, results

        run = checkpoint.load(self.run)
        splits = open_splits(from_config(run.config["data"]))
        test = splits.test if self.volumes is None else other_volumes(run, self.volumes)
        place = results.place(self.run, self.volumes)
        own = own_volumes(run) if run.config.get("volumes") is not None else None
        if not test.labels.any() or test.labels.all():
            kind = "anomalous" if test.labels.any() else "healthy"
            way_out = (
                "name others" if run.config.get("volumes") else f"score others with `jaxvae score {self.run} FOLDER`"
            )
            raise InputError(
                f"{self.volumes or self.run}: its data have {len(test)} test images"
                f"{f', all {kind}' if len(test) else ''}; healthy and anomalous ones are needed ({way_out})"
            )
        results.check_shape(run, test.images, str(self.volumes or run.config["data"]["data"]))
        scored = results.score_dataset(run, test, maps=results.MAPS if test.masks is not None else ())
        evaluation = _evaluation(run, test, scored, self.resamples)
        evaluation["thresholds"] = _healthy_thresholds(run, splits.validation)
        evaluation["judged"] = None if self.volumes is None else str(self.volumes.resolve())
        evaluation["volumes"] = [] if own is None else self._volume_tables(run, own, splits.validation, test)
        results.write_scores(place / "scores", test, scored)
        files.write_json(place / "evaluation.json", evaluation)
        print(evaluation_text(evaluation))
        command = f"jaxvae report {self.run}{f' {self.volumes}' if self.volumes else ''}"
        print(f"\n{place / 'evaluation.json'} holds these numbers; draw them with `{command}`")

    def _volume_tables(self, run: Run, own: Cache, validation: Dataset, test: Dataset) -> list[dict[str, Any]]:
        from jaxvae import volume_tables
        from jaxvae.data import cache

        judged = own if self.volumes is None else cache.open_cache(self.volumes)
        judging = volume_tables.Judging(median=self.median, components=self.components, background=self.background)
        found = volume_tables.tables(
            run,
            cache.scans(judged, test.groups),
            cache.scans(own, validation.groups),
            judging,
            resamples=self.resamples,
        )
        return volume_tables.to_config(found)


def own_volumes(run: Run) -> Cache:
    """The prepared volumes that a run was trained on.

    Raises:
      InputError: they were prepared anew since, so that nobody knows who was trained on.
    """
    from jaxvae.data import cache

    opened = cache.open_cache(run.config["data"]["data"])
    if opened.hash != run.config["volumes"]["hash"]:
        raise InputError(f"{opened.directory}: was prepared anew since the run was trained on it; train a new run")
    return opened


def other_volumes(run: Run, directory: Path) -> Dataset:
    """All slices of other prepared volumes, which have to be cut as the run's own were.

    Raises:
      InputError: they are not, they are the run's own, or the run was not trained on volumes.
    """
    from jaxvae import volume_scores
    from jaxvae.data import cache

    wanted, opened = volume_scores.slicing_of(run), cache.open_cache(directory)
    if opened.slicing != wanted:
        raise InputError(
            f"{directory}: was prepared with {opened.slicing}, and what the run learnt from with {wanted}; "
            "prepare it with the same flags"
        )
    learnt_from = {record["image"] for record in own_volumes(run).volumes}
    if any(record["image"] in learnt_from for record in opened.volumes):
        raise InputError(f"{directory}: holds scans that the run learnt from; name others, or none for its own test")
    return cache.dataset(opened)


def _evaluation(run: Run, test: Dataset, scored: Any, resamples: int) -> dict[str, Any]:
    from jaxvae import __version__, evaluation
    from jaxvae.data import slices

    images = slices.middle(test.images) if run.config.get("volumes") else test.images
    baselines = evaluation.baseline_maps(images)
    samples = {**evaluation.map_means(baselines), **scored.samples}
    pixels = []
    if test.masks is not None:
        maps = {**baselines, **scored.maps}
        pixels = evaluation.pixel_rows(maps, test.masks, test.groups, resamples=resamples)
    return {
        "jaxvae": __version__,
        "data": run.config["data"],
        "step": run.step,
        "images": {"test": len(test), "anomalous": int(test.labels.sum()), "groups": len(set(test.groups))},
        "anomalous_pixels": None if test.masks is None else float(test.masks.mean()),
        "pixels": pixels,
        "samples": evaluation.sample_rows(samples, test.labels, test.groups, resamples=resamples),
    }


def _healthy_thresholds(run: Run, validation: Dataset) -> dict[str, dict[str, float]]:
    """By map and by the share of healthy validation pixels above it: thresholds that no label was needed for."""
    from jaxvae import evaluation, results

    if len(validation) == 0:
        return {}
    maps = results.score_dataset(run, validation, name="validation").maps
    return {
        name: {f"{rate:g}": evaluation.healthy_threshold(values, rate) for rate in evaluation.RATES}
        for name, values in maps.items()
    }


def evaluation_text(evaluation: dict[str, Any]) -> str:
    """The tables for a terminal."""
    from jaxvae.bootstrap import FEWEST_GROUPS
    from jaxvae.evaluation import PIXEL_BEST, PIXEL_COLUMNS, SAMPLE_COLUMNS
    from jaxvae.report import tables
    from jaxvae.volume_evaluation import BEST as VOLUME_BEST

    images = evaluation["images"]
    parts = []
    if evaluation["pixels"]:
        rows = named(evaluation["pixels"])
        share = 100 * evaluation["anomalous_pixels"]
        parts.append(
            f"Pixels: {share:.2f} % anomalous, all pooled, background included; best Dice is chosen on these labels\n"
            "(* wins its column; in brackets the 95 % interval over resampled images or patients, "
            f"where there are at least {FEWEST_GROUPS})\n"
        )
        parts.append(tables.text(rows, PIXEL_COLUMNS, best=PIXEL_BEST) + "\n")
    parts.append(f"Images: {images['anomalous']} of {images['test']} anomalous\n")
    parts.append(tables.text(named(evaluation["samples"]), SAMPLE_COLUMNS))
    for caption, rows, columns in tables_of_volumes(evaluation):
        parts.append(f"\n{caption}\n")
        parts.append(tables.text(rows, columns, best=VOLUME_BEST))
    return "\n".join(parts)


def tables_of_volumes(evaluation: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, str]]]:
    """(caption, rows, columns) of every table of volumes: over all thresholds, then at that of each healthy rate."""
    from jaxvae.evaluation import RATES
    from jaxvae.volume_evaluation import COLUMNS

    for table in evaluation.get("volumes", ()):
        if not table["rows"]:
            continue
        rows = named(table["rows"])
        caption = f"{table['caption']}; {rows[0]['volumes']} volumes"
        anywhere = {key: head for key, head in COLUMNS.items() if "_at_healthy_" not in key and key != "volumes"}
        yield caption, rows, anywhere
        for rate in RATES:
            suffix = f"_at_healthy_{rate:g}"
            at = {key: head.partition(" at healthy")[0] for key, head in COLUMNS.items() if key.endswith(suffix)}
            if at.keys() <= rows[0].keys():
                yield (
                    f"{caption}; threshold that {100 * rate:g} % of healthy voxels reach",
                    rows,
                    {"score": "score", **at},
                )


def named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of evaluation.json with scores under their display names and intervals as the tuples tables expect."""
    from jaxvae.report import style

    return [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        | {"score": style.display(row["score"])}
        for row in rows
    ]
