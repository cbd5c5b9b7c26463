"""`jaxvae evaluate`: how well a run finds what is known to be wrong in its test images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import at_hand, open_other, open_own
from jaxvae.errors import InputError, command

if TYPE_CHECKING:
    from jaxvae.data.dataset import Splits
    from jaxvae.data.volumes.scans import Scan
    from jaxvae.evaluation.thresholds import Kept
    from jaxvae.evaluation.volume_tables import Judging
    from jaxvae.runs.checkpoint import Run


@dataclass(frozen=True)
class Evaluate:
    """Compute metrics of a trained run on its labelled test images.

    Writes the scores of its test images, and evaluation.json; prints the tables.
    A run can be tested on other images than its own too, and then needs its own no longer. With volumes, the same
    command continues where it was killed.
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

    out: Annotated[Path | None, flags.optional("PATH", "RUN, or RUN/on/NAME for a folder NAME")] = None
    """where to write the results"""

    def execute(self) -> None:
        for name in ("resamples", "median", "components"):
            flags.refuse_below_zero(name, getattr(self, name))
        if self.median and self.median % 2 == 0:
            raise InputError(f"--median {self.median}: must be odd, or 0")
        from jaxvae import files
        from jaxvae.data.volumes import cache
        from jaxvae.evaluation import image_tables, prepared_volumes, thresholds, volume_tables
        from jaxvae.report import evaluation_tables
        from jaxvae.runs import checkpoint
        from jaxvae.scoring import results

        run = checkpoint.load(self.run)
        config, other = at_hand(run.config, self.other)
        run = run._replace(config=config)
        of_volumes = config.get("volumes") is not None
        flags.refuse_unless(of_volumes, self, ("median", "components", "background"), "a run on volumes")
        if other is None:
            splits: Splits | None = open_own(self.run, config)
            kept, test = self._kept(run, splits), splits.test
        else:
            splits, kept = None, self._kept(run, None)
            test = open_other(self.run, run, other)
        if len(test) == 0:
            way_out = f"name others that have labels, {command('evaluate', self.run, 'OTHER')}"
            raise InputError(f"{other or self.run}: its data have no test images; {way_out}")
        where = other or Path(config["data"]["data"])
        results.check_shape(run, test.images, str(where))
        tested = cache.open_cache(where) if of_volumes else None
        images = results.fingerprint_of(test, tested and tested.hash)
        place = results.claim(self.run, other, self.out, config["data"]["data"], images)
        if kept.ranges and (far := thresholds.unlike(kept.ranges, test.images).sum()):
            print(f"{where}: {thresholds.notice(far, len(test))}\n")
        needs_maps = of_volumes or test.masks is not None or not test.labels.any()
        scored = results.score_dataset(run, test, maps=results.MAPS if needs_maps else ())
        evaluation = image_tables.of_images(run, test, scored, resamples=self.resamples)
        evaluation["thresholds"] = kept.thresholds
        if not test.labels.any():
            evaluation["false_positives"] = image_tables.false_positives(scored, kept.thresholds)
        evaluation["judged"] = None if other is None else str(other.resolve())
        evaluation["run"] = str(self.run.resolve())
        evaluation["contents"] = images
        results.write_scores(place / "scores", test, scored)
        evaluation["volumes"] = []
        if tested is not None and (gone := cache.missing_files(tested, test.groups)):
            there = f"{len(gone)} files of its scans are gone, such as {gone[0]}"
            print(f"{where}: {there}; evaluated at the model's resolution, from the prepared slices\n")
            args = (tested, test, scored.maps, kept.thresholds, self._judging())
            found = [prepared_volumes.table_of_slices(*args, resamples=self.resamples)]
            evaluation["volumes"] = volume_tables.to_config(found)
        elif tested is not None:
            del scored  # so that it is not in memory beside the volumes
            found = volume_tables.tables(
                run,
                cache.scans(tested, test.groups),
                self._healthy_scans(run, splits),
                self._judging(),
                resamples=self.resamples,
                kept=place / "measures",
                of_slices=kept.thresholds,
            )
            evaluation["volumes"] = volume_tables.to_config(found)
        files.write_json(place / "evaluation.json", evaluation)
        shutil.rmtree(place / "measures", ignore_errors=True)
        print(evaluation_tables.text(evaluation))
        draw = command("report", self.run, *filter(None, [self.other]), *(["--out", self.out] if self.out else []))
        print(f"\n{place / 'evaluation.json'} holds these numbers; draw them with {draw}")

    def _judging(self) -> Judging:
        from jaxvae.evaluation.volume_tables import Judging

        return Judging(median=self.median, components=self.components, background=self.background)

    def _kept(self, run: Run, splits: Splits | None) -> Kept:
        """What the run keeps of its healthy images; nothing, and a line that says why, where it cannot be had."""
        from jaxvae.evaluation import thresholds

        try:
            return thresholds.of(self.run, run, lambda: splits or open_own(self.run, run.config))
        except InputError as error:
            print(f"no thresholds of healthy images: {error}\n")
            return thresholds.Kept({}, None)

    def _healthy_scans(self, run: Run, splits: Splits | None) -> list[Scan]:
        """The scans of the run's own validation; none where they, or the volumes prepared from them, are gone."""
        from jaxvae.data.volumes import cache

        try:
            splits = splits or open_own(self.run, run.config)
        except InputError:
            return []
        own, patients = cache.open_cache(run.config["data"]["data"]), splits.validation.groups
        return [] if cache.missing_files(own, patients) else cache.scans(own, patients)
