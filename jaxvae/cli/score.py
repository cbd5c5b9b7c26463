"""`jaxvae score`: maps of a run's own test images, or of any images."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import from_config, open_own, preparation
from jaxvae.cli.words import counted, spaced
from jaxvae.errors import InputError, command
from jaxvae.scores import MAPS

if TYPE_CHECKING:
    from jaxvae.data.images.layouts import Entry
    from jaxvae.data.images.tree import LeftOut
    from jaxvae.evaluation.thresholds import Kept
    from jaxvae.runs.checkpoint import Run

    MapName = str
else:
    MapName = tyro.extras.literal_type_from_choices(MAPS)

SHOWN = 5  # Of the images that were left out; of all of them failed.jsonl says why.


@dataclass(frozen=True)
class Score:
    """Write maps and scores of images or volumes, or of a run's own test.

    Of every image in a folder: its maps (float32, of the image's own size), the first
    of them laid over the image, and a binary mask if there is a threshold. The scores
    of whole images are in samples.jsonl.

    Of every volume: its maps as NIfTI files on the scan's own grid, a mask if there is
    a threshold, and the scores of its slices as JSON.

    The same command again goes on with those that are not done yet.
    """

    run: flags.Run
    """the run folder"""
    folder: Annotated[Path | None, tyro.conf.Positional, flags.optional("[FOLDER]", "the run's own test images")] = None
    """a folder of images or volumes, one of them, or prepared volumes; prepared as the run's own were"""
    out: Annotated[Path | None, flags.optional("PATH", "RUN/scores/NAME for a folder NAME, else RUN/scores")] = None
    """where to write"""
    maps: Annotated[tuple[MapName, ...], flags.several("NAME")] = (
        "combi",
        "rec_error",
        "elbo_grad",
        "kl_grad",
        "rec_grad",
    )
    """which maps, also combi_smoothed, combi_nll, combi_sum; overlay and mask show the first"""
    format: Literal["npy", "tiff"] = "npy"
    """of the maps of a folder"""
    threshold: Annotated[
        float | None,
        flags.optional("FLOAT", "what 1 % of the run's healthy validation pixels or voxels reach"),
    ] = None
    """of the masks: pixels are anomalous from this value on"""
    images: Annotated[str | None, flags.optional("PATTERN", "every volume in the folder and below")] = None
    """volumes only: where the scans lie below the folder, such as '**/*_flair.nii.gz'"""
    brains: Annotated[str | None, flags.optional("PATTERN", "found in each scan")] = None
    """volumes only: where the brain masks lie; {0}, {1}: the stars of --images, else a scan's folder/ and bare name"""
    shard: Annotated[str | None, flags.optional("I/N", "all")] = None
    """volumes only: every N-th volume, from the I-th, counted from 0; several hosts may share the folder"""
    batch_size: int = 48
    """images at a time on each device; changes the speed only"""

    def execute(self) -> None:
        self._check()
        from jaxvae.runs import checkpoint

        run = checkpoint.load(self.run)
        if self.folder is not None and run.config.get("volumes") is not None:
            self._write_volumes(run, self.folder)
            return
        for flag in ("images", "brains", "shard"):
            if getattr(self, flag) is not None:
                raise InputError(f"--{flag}: only goes with a folder of volumes, and a run that was trained on volumes")
        if self.folder is not None:
            self._write_images(run, self.folder)
        else:
            self._write_own(run)

    def _scored(self, out: Path, count: int, noun: str, before: int = 0) -> str:
        there = f", {before} {'were' if before != 1 else 'was'} there already" if before else ""
        return f"{out}: {counted(count, noun)} scored ({', '.join(self.maps)}){there}"

    def _check(self) -> None:
        flags.refuse_unless_positive("batch_size", self.batch_size)
        if not self.maps:
            raise InputError("--maps without a name: name at least one map, such as combi")
        if len(set(self.maps)) < len(self.maps):
            raise InputError(f"--maps: {spaced(self.maps)} holds a name twice; give each once")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"--threshold {self.threshold}: must be a finite number")
        if self.folder is None and (self.threshold is not None or self.format != "npy"):
            flag = "--format" if self.threshold is None else "--threshold"
            raise InputError(
                f"{flag}: only goes with a folder of images; name one, {command('score', self.run, 'FOLDER')}"
            )

    def _write_own(self, run: Run) -> None:
        """The scores of a run's own test images."""
        from jaxvae.scoring import results

        dataset, out = open_own(self.run, run.config).test, self.out or self.run / "scores"
        if len(dataset) == 0:
            raise InputError(
                f"{self.run}: its data have no test images; name a folder: {command('score', self.run, 'FOLDER')}"
            )
        if (out / "images.json").is_file():
            raise InputError(f"{out}: holds the maps of a folder; name another --out")
        results.check_shape(run, dataset.images, run.config["data"]["data"])
        scored = results.score_dataset(run, dataset, maps=self.maps, batch_size=self.batch_size)
        results.write_scores(out, dataset, scored)
        print(f"{self._scored(out, len(dataset), 'image')}; the numbers of each are in samples.jsonl")

    def _write_images(self, run: Run, folder: Path) -> None:
        """The files of every image of a folder."""
        from jaxvae.data.images import folders
        from jaxvae.evaluation import thresholds
        from jaxvae.progress import Bar
        from jaxvae.scoring import image_maps

        out = self._out(run, folder)
        entries, left_out = _entries(folder)
        kept = self._kept(run)
        wanted = image_maps.Files(self.maps, self.format, self._threshold(run, kept))
        with Bar(total=len(entries), unit="image", desc="score") as bar:
            summary = image_maps.write_images(
                run,
                entries,
                out,
                wanted,
                preparation=preparation(from_config(run.config["data"])),
                settings={"folder": str(folder.resolve()), "step": run.step, **run.config},
                left_out=folders.records(left_out),
                batch_size=self.batch_size,
                ranges=kept and kept.ranges,
                finished=bar.update,
            )
        words = self._scored(out, summary.written, "image", summary.skipped)
        print(f"{words}; the numbers of each are in samples.jsonl")
        if left_out:
            print(f"  {folders.summary(left_out)}; left_out.jsonl lists them")
        if summary.unlike:
            print(f"  {thresholds.notice(summary.unlike, summary.written)}")
        for one in summary.failed[:SHOWN]:
            print(f"  left out: {one.reason}")
        if len(summary.failed) > SHOWN:
            print(f"  and {len(summary.failed) - SHOWN} more")
        if summary.failed:
            raise InputError(
                f"{folder}: {len(summary.failed)} of {len(entries)} images could not be scored; "
                f"{out / 'failed.jsonl'} says why"
            )

    def _write_volumes(self, run: Run, folder: Path) -> None:
        from jaxvae.data.volumes import cache, scans
        from jaxvae.progress import Bar
        from jaxvae.scoring import volume_maps

        if self.format != "npy":
            raise InputError("--format: goes with images only; maps of volumes are NIfTI files")
        out = self._out(run, folder)
        if cache.is_cache(folder):
            for flag in ("images", "brains"):
                if (pattern := getattr(self, flag)) is not None:
                    raise InputError(f"--{flag} {pattern}: {folder} are prepared volumes, all of which are scored")
            found, rejected = cache.scans(cache.open_cache(folder)), []
        else:
            found, rejected = scans.unlabelled(folder, images=self.images, brains=self.brains)
        for line in scans.shared(found):
            print(f"  {line}")
        found, rejected = found[self._shard()], rejected[self._shard()]
        kept = self._kept(run)
        threshold = self._threshold(run, kept)
        with Bar(total=len(found), unit="volume", desc="score") as bar:
            summary = volume_maps.write_scans(
                run,
                found,
                out,
                maps=self.maps,
                threshold=threshold,
                ranges=kept and kept.ranges,
                batch_size=self.batch_size,
                rejected=rejected,
                shard=(self.shard or "").replace("/", "of"),
                finished=bar.update,
            )
        print(self._scored(out, summary.written, "volume", summary.skipped))
        if summary.written:
            each = {stage: value / summary.written for stage, value in summary.seconds.items()}
            print(f"  a volume took {', '.join(f'{each[stage]:.2f} s to {stage}' for stage in each)}; stages overlap")
        for warning, count in summary.warnings.most_common(5):
            print(f"  {count} x {warning}")
        for one in summary.failed:
            print(f"  left out: {one.reason}")
        if summary.failed:
            of = len(found) + len(rejected)
            raise InputError(f"{folder}: {len(summary.failed)} of {of} volumes could not be scored")

    def _shard(self) -> slice:
        if self.shard is None:
            return slice(None)
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not match or not int(match[1]) < int(match[2]):
            raise InputError(f"--shard {self.shard}: must be I/N with I from 0 to N - 1, such as 0/4")
        return slice(int(match[1]), None, int(match[2]))

    def _out(self, run: Run, folder: Path) -> Path:
        place = folder.resolve()
        out = self.out or self.run / "scores" / (place.name if place.is_dir() else _bare(place))
        own = Path(run.config["data"]["data"])
        if own.is_absolute() and out.resolve().is_relative_to(own.resolve()):
            raise InputError(f"{out}: lies within {own}, the images of the run; give another --out")
        if out.resolve() == self.run.resolve():
            raise InputError(f"--out {out}: is the run itself; name a folder in it, or another place")
        if place.is_dir() and out.resolve().is_relative_to(place):
            raise InputError(f"{out}: lies within {folder}, where results would count as images; give another --out")
        return out

    def _threshold(self, run: Run, kept: Kept | None) -> float | None:
        """Of the first map: what 1 % of the run's healthy validation pixels reach. For voxels, an evaluation may have
        measured it on the scans' own grid."""
        from jaxvae.scoring import results

        if self.threshold is not None:
            return self.threshold
        first = self.maps[0]
        for evaluation in results.evaluations(self.run) if run.config.get("volumes") else ():
            for table in evaluation.get("volumes", [])[:1]:
                if first in table["thresholds"]:
                    return table["thresholds"][first]["0.01"]
        if kept is not None and first in kept.thresholds:
            return kept.thresholds[first]["0.01"]
        if kept is not None:
            print("  no threshold, and so no masks: the run has no validation images; give --threshold")
        return None

    def _kept(self, run: Run) -> Kept | None:
        """What the run keeps of its healthy images; None, and a line that says why, where it cannot be had."""
        from jaxvae.evaluation import thresholds

        if self.threshold is not None:
            return thresholds.read(self.run, run)
        try:
            return thresholds.of(self.run, run, lambda: open_own(self.run, run.config))
        except InputError as error:
            print(f"  no threshold, and so no masks: {error}")
            return None


def _bare(path: Path) -> str:
    """The name of a single file without its suffix, .nii.gz too."""
    from jaxvae.data.volumes import volume_files

    return volume_files.stem(path) if volume_files.is_volume(path) else path.stem


def _entries(folder: Path) -> tuple[list[Entry], list[LeftOut]]:
    """The images of a folder, no two of which have the same name without suffix; and the other files."""
    from jaxvae.data.images import folders

    entries, left_out = folders.unlabelled(folder)
    stems: dict[Path, str] = {}
    for entry in entries:
        other = stems.setdefault(Path(entry.name).with_suffix(""), entry.name)
        if other != entry.name:
            raise InputError(
                f"{entry.name}: its maps would have the same names as those of {other}; rename one of them"
            )
    return entries, left_out
