"""`jaxvae score`: maps of any images or volumes, or of a run's own test images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.complaints import shortened, with_flags
from jaxvae.cli.flags import MapName, check_maps
from jaxvae.errors import InputError, command, counted, refuse_unless, refuse_unless_positive
from jaxvae.scores import DEFAULT_MAPS, per_pixel

if TYPE_CHECKING:
    from jaxvae.runs.run import Run
    from jaxvae.scoring.writing import MapSettings, Outcome

MAPS = flags.named_maps(
    "which maps and image scores. Overlay and mask show the first map. ELBO-Grad has the highest mean average "
    "precision of the paper's scores over the 53 settings measured",
    f"{' '.join(DEFAULT_MAPS)}, as far as the run has them",
)
SHOWN = 5  # lines that are printed at most; failed.jsonl has every failure


@dataclass(frozen=True)
class Score:
    """Write maps and scores of images or volumes, or of a run's own test images.

    For each image in a folder: its maps (float32, with the size of the image), the
    first map laid over the image, and a binary mask if there is a threshold. The
    scores of whole images are in samples.jsonl.

    For each volume: its maps as NIfTI files on the scan's own grid, a mask if there
    is a threshold, and the scores of its slices as JSON.

    Repeat the command to continue where it was stopped.
    """

    run: flags.Run
    """the run folder"""
    folder: Annotated[Path | None, tyro.conf.Positional, flags.optional("[FOLDER]", "the run's own test images")] = None
    """a folder of images or volumes, one file, or prepared volumes; prepared in the same way as the run's own"""
    out: Annotated[Path | None, flags.optional("PATH", "RUN/scores/NAME for a folder NAME, else RUN/scores")] = None
    """where to write"""
    maps: Annotated[tuple[MapName, ...], MAPS] = ()
    format: Literal["npy", "tiff"] = "npy"
    """file format of the maps of images"""
    threshold: Annotated[
        float | None,
        flags.optional("FLOAT", "the value that 1 % of the run's healthy validation pixels or voxels reach"),
    ] = None
    """mask threshold: pixels of the first map at or above this value are anomalous"""
    images: Annotated[str | None, flags.optional("PATTERN", "every volume in the folder and below")] = None
    """volumes only: where the scans are below the folder, such as '**/*_flair.nii.gz'"""
    brains: Annotated[str | None, flags.optional("PATTERN", "found in each scan")] = None
    """volumes only: where the brain masks are; {0}, {1}: the stars of --images, else a scan's folder/ and bare name"""
    shard: Annotated[str | None, flags.optional("I/N", "all")] = None
    """volumes only: every N-th volume from the I-th, counted from 0; several hosts may share the folder"""
    batch_size: Annotated[int | None, flags.optional("INT", "48 on a CPU, 256 on an accelerator")] = None
    """images at a time on each device; changes the speed only"""

    def execute(self) -> None:
        self._check()
        from jaxvae.data import kinds
        from jaxvae.runs import score_names
        from jaxvae.runs.run import load

        run = load(self.run)
        volumes = run.kind is kinds.VOLUMES
        where = "a folder of volumes, and a run that was trained on volumes"
        refuse_unless(volumes and self.folder is not None, self, ("images", "brains", "shard"), where)
        maps = self.maps or tuple(name for name in DEFAULT_MAPS if name in run.maps)
        score_names.check_maps(run.model, run.objective, maps)
        if self.folder is None:
            self._score_own(run, maps)
        elif volumes:
            self._score_volumes(run, self.folder, maps)
        else:
            self._score_images(run, self.folder, maps)

    def _check(self) -> None:
        if self.batch_size is not None:
            refuse_unless_positive("batch_size", self.batch_size)
        if self.maps:
            check_maps(self.maps)
            if not per_pixel(self.maps):
                problem = "has no map with one value per pixel; name one too, such as elbo_grad"
                raise InputError(f"--maps {' '.join(self.maps)}: {problem}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"--threshold {self.threshold}: must be a finite number")
        where = f"a folder of images; name one, {command('score', self.run, 'FOLDER')}"
        refuse_unless(self.folder is not None, self, ("threshold", "format"), where)

    def _score_own(self, run: Run, maps: tuple[str, ...]) -> None:
        from jaxvae.scoring.score_files import score_own_test

        out, count = score_own_test(run, self.out, maps=maps, batch_size=self.batch_size)
        print(f"{_scored(out, maps, count, 'image')}; the numbers of each are in samples.jsonl")

    def _score_images(self, run: Run, folder: Path, maps: tuple[str, ...]) -> None:
        from jaxvae.scoring import healthy_stats, image_maps

        out, outcome = image_maps.score_image_folder(run, folder, self.out, self._map_settings(run, maps))
        written = len(outcome.records)
        print(f"{_scored(out, maps, written, 'image', outcome.skipped)}; the numbers of each are in samples.jsonl")
        far = [healthy_stats.notice(len(names), written) for names in outcome.warnings.values()]
        for line in (*outcome.notices, *far):
            print(f"  {line}")
        self._report_failures(folder, outcome, "images")

    def _score_volumes(self, run: Run, folder: Path, maps: tuple[str, ...]) -> None:
        from jaxvae.scoring import volume_maps

        refuse_unless(False, self, ("format",), "images; maps of volumes are NIfTI files")
        patterns, wanted = {"images": self.images, "brains": self.brains}, self._map_settings(run, maps)
        out, outcome = volume_maps.score_volume_folder(run, folder, self.out, wanted, **patterns, shard=self.shard)
        for line in outcome.notices:
            print(f"  {line}")
        written = len(outcome.records)
        print(_scored(out, maps, written, "volume", outcome.skipped))
        if written:
            stages = volume_maps.stage_seconds(outcome).items()
            seconds = ", ".join(f"{value / written:.2f} s to {stage}" for stage, value in stages)
            print(f"  a volume took {seconds}; stages overlap")
        for warning, names in sorted(outcome.warnings.items(), key=lambda item: -len(item[1]))[:SHOWN]:
            print(with_flags(f"  {shortened(names)}: {warning}", vars(self)))
        self._report_failures(folder, outcome, "volumes")

    def _map_settings(self, run: Run, maps: tuple[str, ...]) -> MapSettings:
        from jaxvae.evaluation import thresholds
        from jaxvae.scoring import healthy_stats
        from jaxvae.scoring.writing import MapSettings

        if self.threshold is not None:
            stats = healthy_stats.read(run)
            threshold, ranges = self.threshold, stats and stats.ranges
        else:
            threshold, ranges, problem = thresholds.mask_threshold(run, per_pixel(maps)[0])
            if threshold is None:
                print(f"  no threshold, and so no masks: {problem}; pass --threshold for masks")
        return MapSettings(maps, threshold, ranges, self.batch_size, self.format)

    def _report_failures(self, folder: Path, outcome: Outcome, noun: str) -> None:
        failed = outcome.failed
        for one in failed[:SHOWN]:
            print(with_flags(f"  failed: {one.reason}", vars(self)))
        if len(failed) > SHOWN:
            print(f"  and {len(failed) - SHOWN} more")
        if failed:
            total = len(outcome.records) + outcome.skipped + len(failed)
            problem = f"{len(failed)} of {total} {noun} could not be scored"
            raise InputError(f"{folder}: {problem}; {outcome.failures} says why")


def _scored(out: Path, maps: tuple[str, ...], count: int, noun: str, before: int = 0) -> str:
    skipped = f", {before} {'were' if before != 1 else 'was'} there already" if before else ""
    return f"{out}: {counted(count, noun)} scored ({', '.join(maps)}){skipped}"
