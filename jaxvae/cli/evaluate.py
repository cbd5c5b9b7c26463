"""`jaxvae evaluate`: how well a run finds what is known to be wrong in its test images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import open_other, open_own
from jaxvae.errors import InputError, command

if TYPE_CHECKING:
    from jaxvae.checkpoint import Run
    from jaxvae.data.cache import Cache
    from jaxvae.data.dataset import Dataset


@dataclass(frozen=True)
class Evaluate:
    """Hold a run's scores against what is known of its test images.

    Writes the scores of its test images, and evaluation.json; prints the tables.
    A run can be held against other images than its own too; of volumes, what was killed goes on where it was.
    """

    run: flags.Run
    """the run folder"""
    other: Annotated[Path | None, tyro.conf.Positional, flags.optional("[OTHER]", "the run's own test")] = None
    """another folder with labels, or other prepared volumes with lesions; the results are those of RUN/on/NAME"""
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
            flags.refuse_below_zero(name, getattr(self, name))
        if self.median and self.median % 2 == 0:
            raise InputError(f"--median {self.median}: must be odd, or 0")
        from jaxvae import checkpoint, files, results, volume_tables
        from jaxvae.report import evaluation_tables

        run = checkpoint.load(self.run)
        of_volumes = run.config.get("volumes") is not None
        flags.refuse_unless(of_volumes, self, ("median", "components", "background"), "a run on volumes")
        splits = open_own(run.config)
        if self.other is None:
            test = splits.test
        elif of_volumes:
            test = volume_tables.other_volumes(run, self.other)
        else:
            test = open_other(run.config, self.other, splits)
        place = results.place(self.run, self.other)
        results.refuse_others(place, self.other)
        own = volume_tables.own_volumes(run) if of_volumes else None
        if not test.labels.any() or test.labels.all():
            kind = "anomalous" if test.labels.any() else "healthy"
            way_out = f"name others that have labels, {command('evaluate', self.run, 'OTHER')}"
            raise InputError(
                f"{self.other or self.run}: its data have {len(test)} test images"
                f"{f', all {kind}' if len(test) else ''}; healthy and anomalous ones are needed ({way_out})"
            )
        results.check_shape(run, test.images, str(self.other or run.config["data"]["data"]))
        scored = results.score_dataset(run, test, maps=results.MAPS if test.masks is not None else ())
        evaluation = _evaluation(run, test, scored, self.resamples)
        evaluation["thresholds"] = results.measured_thresholds(self.run, run, splits.validation)
        evaluation["judged"] = None if self.other is None else str(self.other.resolve())
        results.write_scores(place / "scores", test, scored)
        del scored  # so that it is not in memory beside the volumes
        evaluation["volumes"] = [] if own is None else self._volume_tables(run, own, splits.validation, test, place)
        files.write_json(place / "evaluation.json", evaluation)
        shutil.rmtree(place / "measures", ignore_errors=True)
        print(evaluation_tables.text(evaluation))
        draw = command("report", self.run, *filter(None, [self.other]))
        print(f"\n{place / 'evaluation.json'} holds these numbers; draw them with {draw}")

    def _volume_tables(
        self, run: Run, own: Cache, validation: Dataset, test: Dataset, place: Path
    ) -> list[dict[str, Any]]:
        from jaxvae import volume_tables
        from jaxvae.data import cache

        judged = own if self.other is None else cache.open_cache(self.other)
        judging = volume_tables.Judging(median=self.median, components=self.components, background=self.background)
        found = volume_tables.tables(
            run,
            cache.scans(judged, test.groups),
            cache.scans(own, validation.groups),
            judging,
            resamples=self.resamples,
            kept=place / "measures",
        )
        return volume_tables.to_config(found)


def _evaluation(run: Run, test: Dataset, scored: Any, resamples: int) -> dict[str, Any]:
    import numpy as np

    from jaxvae import __version__, evaluation
    from jaxvae.data import slices

    images = slices.middle(test.images) if run.config.get("volumes") else test.images
    baselines = evaluation.baseline_maps(images)
    # Equal for all images, as the mean of ranks is where all pixels have one, a baseline says nothing of them.
    means = {name: values for name, values in evaluation.map_means(baselines).items() if np.ptp(values) > 0}
    samples = {**means, **scored.samples}
    pixels = []
    # An image may be called anomalous for a lesion of which no pixel is left at the model's resolution.
    if test.masks is not None and test.masks.any():
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
