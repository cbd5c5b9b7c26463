"""`jaxvae prepare`: download a data set, or cut a folder of volumes into slices."""

from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.complaints import shortened, with_flags
from jaxvae.data.kinds import PREFIX
from jaxvae.errors import InputError, command, counted, refuse_unless

SHOWN = 5  # Lines about files or warnings that are printed; files in the folder list all.


@dataclass(frozen=True)
class Prepare:
    """Cut a folder of brain volumes into slices, or download FashionMNIST.

    Volumes are NIfTI, MGH or Analyze files. The same command continues where it
    was killed. Files that cannot be read are skipped; rejected.jsonl lists them
    with their reasons.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|fashion_mnist:DIR")]
    """the folder of volumes; or the data set to download and its folder"""
    out: Annotated[Path | None, flags.optional("PATH", "needed for volumes")] = None
    """the folder for the slices; train on them with `jaxvae train RUN --data PATH`"""
    layout: Literal[
        "auto", "hcp", "brats2023", "brats2024goat", "brats2024rt", "bids", "brats2017", "isles2015", "ixi"
    ] = "auto"
    """where the scans and their masks are; auto uses the first layout that fits; if none fits, it reads all volumes and
    no masks; brats2017 is also for 2018 to 2021, brats2023 for 2024"""
    modality: Annotated[str | None, flags.optional("NAME", "T2, for ixi T1, for brats2024rt t1c")] = None
    """which scan of each patient, in the layout's spelling: t2, flair, T1w"""
    images: Annotated[str | None, flags.optional("PATTERN", "by the layout")] = None
    """where the scans are below the folder, such as 'T1/*_T1.nii.gz'"""
    brains: Annotated[str | None, flags.optional("PATTERN", "by the layout, else computed from the scan")] = None
    """where the brain masks are; {0}, {1} stand for the matches of the stars in --images: 'masks/{0}_brain.nii.gz'"""
    lesions: Annotated[str | None, flags.optional("PATTERN", "by the layout")] = None
    """where the lesion masks are, such as 'masks/{0}_lesion.nii.gz' ({0}, {1} stand for the
    matches of the stars in --images); without them all scans count as healthy"""
    patients: Annotated[str | None, flags.optional("PATTERN", "by the layout, else guessed")] = None
    """the patient of a scan, such as '{0}' ({0}, {1} stand for the matches of the stars in --images); splits keep the
    scans of a patient together"""
    size: int = 64
    """pixels in height and width of a slice; the paper's is 64"""
    normalise: Literal["zscore", "robust", "none"] = "zscore"
    """over each brain: zscore by mean and standard deviation, robust by median and absolute deviation"""
    percentiles: Annotated[tuple[float, float] | None, flags.optional("LOW HIGH", "off")] = None
    """clip each brain's values at these percentiles before normalising, such as 0.5 99.5"""
    clip: Annotated[float | None, flags.optional("FLOAT", "off")] = None
    """clip values at this many standard deviations; the paper's 1.5 clips much of a bright lesion"""
    smallest: float = 0.25
    """skip planes with less than this share of the largest plane's brain area"""
    neighbours: int = 0
    """planes above and below each slice that become further channels"""

    def execute(self) -> None:
        if self.data.startswith(PREFIX):
            of_volumes = tuple(flag.name for flag in fields(self) if flag.name not in ("data", "out"))
            refuse_unless(False, self, of_volumes, "a folder of volumes")
            refuse_unless(False, self, ("out",), "a folder of volumes; FashionMNIST goes to its DIR")
            from jaxvae.data import fashion_mnist

            fashion_mnist.download(directory := self.data.removeprefix(PREFIX))
            train = command("train", "RUN", "--data", self.data, "--hold-out", 8)
            print(f"{directory}: FashionMNIST is there; next: {train}")
            return
        if self.out is None:
            raise InputError(f"`out` is missing: where to put the slices of the volumes in {self.data}")
        if self.out.resolve().is_relative_to(Path(self.data).resolve()):
            raise InputError(f"{self.out}: is inside {self.data}; give another `out`")
        from jaxvae.data.volumes import cache_writer, scans
        from jaxvae.data.volumes.slices import Slicing

        slicing = Slicing(self.size, self.normalise, self.percentiles, self.clip, self.smallest, self.neighbours)
        where = {name: getattr(self, name) for name in ("modality", "images", "brains", "lesions", "patients")}
        found, rejected = scans.find(self.data, self.layout, **where)
        for one in rejected[:SHOWN]:
            print(with_flags(f"left out: {one.reason}", vars(self)))
        if len(rejected) > SHOWN:
            print(f"and {len(rejected) - SHOWN} more")
        # If no pattern says which files are scans, label maps may be among them.
        left_out = cache_writer.prepare(self.out, found, rejected, slicing, label_maps=self.images is not None)
        print(with_flags(self._summary(self.out, len(left_out)), vars(self)))

    def _summary(self, out: Path, left_out: int) -> str:
        from jaxvae.data.volumes import cache, scans

        opened = cache.open_cache(out)
        everything = cache.dataset(opened)
        patients, lesions = len(set(everything.groups)), int(everything.labels.sum())
        slices = f"{counted(len(everything), 'slice')} of {self.size}x{self.size}"
        volumes = f"{counted(len(opened.volumes), 'volume')} of {counted(patients, 'patient')}"
        lines = [f"{out}: {slices} from {volumes}, {counted(lesions, 'slice')} with a lesion"]
        names = defaultdict(list)
        for record in opened.volumes:
            for warning in record["warnings"]:
                names[warning].append(record["name"])
        often = sorted(names.items(), key=lambda item: -len(item[1]))
        lines += [f"  {len(having)} x {warning} ({shortened(having)})" for warning, having in often[:SHOWN]]
        if len(often) > SHOWN:
            lines.append(f"  {len(often) - SHOWN} other warnings, see {out}/volumes.jsonl")
        lines += [f"  {doubt}" for doubt in scans.doubts(cache.scans(opened), patients_given=self.patients is not None)]
        if left_out:
            why = f"{out}/rejected.jsonl gives the reasons"
            lines.append(f"  {left_out} left out, {why}; repair them and prepare into a new folder")
        return "\n".join([*lines, f"next: {command('train', 'RUN', '--data', out)}"])
