"""`jaxvae evaluate`: metrics of a run on labelled images or volumes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxvae.cli import flags
from jaxvae.cli.flags import MapName, check_maps
from jaxvae.errors import InputError, command, refuse_below_zero, refuse_unless

MAPS = flags.named_maps(
    "which maps and image scores; those that need it are first fitted on the run's healthy images",
    "the first eight, as far as the run has them",
)


@dataclass(frozen=True)
class Evaluate:
    """Compute metrics of a trained run on its labelled test images.

    Writes the scores of the test images and evaluation.json, and prints the tables.
    A run can also be tested on other images. It does not need its own images then.
    With volumes, the same command continues where it was killed.
    """

    run: flags.Run
    """the run folder"""
    other: Annotated[Path | None, tyro.conf.Positional, flags.optional("[OTHER]", "the run's own test images")] = None
    """another folder with labels, or other prepared volumes with lesions; results are written to RUN/on/NAME"""
    maps: Annotated[tuple[MapName, ...], MAPS] = ()
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
            refuse_below_zero(name, getattr(self, name))
        if self.median and self.median % 2 == 0:
            raise InputError(f"--median {self.median}: must be odd, or 0")
        from jaxvae.data import kinds
        from jaxvae.evaluation import results
        from jaxvae.evaluation.evaluate import evaluate
        from jaxvae.evaluation.volume_tables import VolumeSettings
        from jaxvae.report import evaluation_tables
        from jaxvae.runs import run_images
        from jaxvae.runs.run import load

        run = load(self.run)
        refuse_unless(run.kind is kinds.VOLUMES, self, ("median", "components", "background"), "a run on volumes")
        if self.maps:
            check_maps(self.maps)
        settings = VolumeSettings(median=self.median, components=self.components, background=self.background)
        args = {"maps": self.maps or None, "resamples": self.resamples, "volumes": settings}
        evaluation = evaluate(run, self.other, **args, save=True, out=self.out, say=print)
        print(evaluation_tables.text(evaluation))
        draw = command("report", self.run, *filter(None, [self.other]), out=self.out)
        folder = results.results_folder(*run_images.at_hand(run, self.other), self.out)
        print(f"\n{folder / results.FILE} holds these numbers; draw them with {draw}")
