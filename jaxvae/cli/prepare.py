"""`jaxvae prepare`: fetch a data set, or cut a folder of volumes into slices, once, so that training finds it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.words import counted, shortened
from jaxvae.data.kinds import PREFIX
from jaxvae.errors import InputError, command

if TYPE_CHECKING:
    from jaxvae.data.volumes.cache import Cache

SHOWN = 5  # of the files that were left out by their names; rejected.jsonl lists all


@dataclass(frozen=True)
class Prepare:
    """Cut a folder of brain volumes into slices, or download FashionMNIST.

    Volumes are NIfTI, MGH or Analyze files. Killed and started again, it goes on
    from the volumes that are done; files that cannot be read are left out and
    listed with their reasons in rejected.jsonl.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|fashion_mnist:DIR")]
    """the folder of volumes; or the data set to download, and the folder to put it in"""
    out: Annotated[Path | None, flags.optional("PATH", "needed for volumes")] = None
    """where to put the slices: `jaxvae train RUN --data PATH` learns from them"""
    layout: Literal[
        "auto", "hcp", "brats2023", "brats2024goat", "brats2024rt", "bids", "brats2017", "isles2015", "ixi"
    ] = "auto"
    """where the scans and their masks are; auto takes the first that fits, else every volume, without masks;
    brats2017 is also for 2018 to 2021, brats2023 for 2024"""
    modality: Annotated[str | None, flags.optional("NAME", "T2, for ixi T1, for brats2024rt t1c")] = None
    """which scan of each patient, as the layout writes it: t2, flair, T1w"""
    images: Annotated[str | None, flags.optional("PATTERN", "as the layout has it")] = None
    """where the scans are below the folder, such as 'T1/*_T1.nii.gz'"""
    brains: Annotated[str | None, flags.optional("PATTERN", "as the layout has it, else found in the scan")] = None
    """where the brain masks are; {0}, {1} are what the stars of --images stood for: 'masks/{0}_brain.nii.gz'"""
    lesions: Annotated[str | None, flags.optional("PATTERN", "as the layout has it")] = None
    """where the lesion masks are, likewise; without them all scans count as healthy"""
    patients: Annotated[str | None, flags.optional("PATTERN", "as the layout has it, else guessed")] = None
    """whose scan it is, likewise: '{0}'; a patient is never on both sides of a split"""
    size: int = 64
    """pixels in height and width of a slice; the paper's is 64"""
    normalise: Literal["zscore", "robust", "none"] = "zscore"
    """over each brain: by mean and standard deviation, or by median and absolute deviation from it"""
    percentiles: Annotated[tuple[float, float] | None, flags.optional("LOW HIGH", "off")] = None
    """cut each brain's values to these percentiles of theirs before normalising, such as 0.5 99.5"""
    clip: Annotated[float | None, flags.optional("FLOAT", "off")] = None
    """cut values to so many standard deviations; the paper's 1.5 cuts off much of what is bright in a lesion"""
    smallest: float = 0.25
    """drop planes with less than this share of the largest plane's brain"""
    neighbours: int = 0
    """planes above and below that each slice has as further channels"""

    def execute(self) -> None:
        if self.data.startswith(PREFIX):
            of_volumes = tuple(flag.name for flag in fields(self) if flag.name not in ("data", "out"))
            flags.refuse_unless(False, self, of_volumes, "a folder of volumes")
            self._download()
            return
        if self.out is None:
            raise InputError(f"--out is missing: where to put the slices of the volumes in {self.data}")
        from jaxvae.data.volumes import cache, cache_writer, scans
        from jaxvae.data.volumes.slices import Slicing

        slicing = Slicing(self.size, self.normalise, self.percentiles, self.clip, self.smallest, self.neighbours)
        if self.out.resolve().is_relative_to(Path(self.data).resolve()):
            raise InputError(f"{self.out}: lies within {self.data}; give another --out")
        found, rejected = scans.find(
            self.data,
            self.layout,
            modality=self.modality,
            images=self.images,
            brains=self.brains,
            lesions=self.lesions,
            patients=self.patients,
        )
        for one in rejected[:SHOWN]:
            print(f"left out: {one.reason}")
        if len(rejected) > SHOWN:
            print(f"and {len(rejected) - SHOWN} more")
        # Where it was not said what the scans are, a mask may be among them.
        left_out = cache_writer.prepare(self.out, found, rejected, slicing, label_maps=self.images is not None)
        print(self._summary(cache.open_cache(self.out), len(left_out)))

    def _summary(self, opened: Cache, left_out: int) -> str:
        from collections import defaultdict

        from jaxvae.data.volumes import cache, scans

        everything = cache.dataset(opened)
        lines = [
            f"{self.out}: {counted(len(everything), 'slice')} of {self.size}x{self.size} from "
            f"{counted(len(opened.volumes), 'volume')} of {counted(len(set(everything.groups)), 'patient')}, "
            f"{counted(int(everything.labels.sum()), 'slice')} with a lesion"
        ]
        names = defaultdict(list)
        for record in opened.volumes:
            for warning in record["warnings"]:
                names[warning].append(record["name"])
        often = sorted(names.items(), key=lambda item: -len(item[1]))
        lines += [f"  {len(having)} x {warning} ({shortened(having)})" for warning, having in often[:SHOWN]]
        if len(often) > SHOWN:
            lines.append(f"  {len(often) - SHOWN} other warnings, see {self.out}/volumes.jsonl")
        lines += [f"  {doubt}" for doubt in scans.doubts(cache.scans(opened), patients_given=self.patients is not None)]
        if left_out:
            lines.append(
                f"  {left_out} left out, {self.out}/rejected.jsonl says why; once they are mended, prepare into a "
                "new folder"
            )
        return "\n".join([*lines, f"next: {command('train', 'RUN', '--data', self.out)}"])

    def _download(self) -> None:
        if self.out is not None:
            raise InputError(f"--out {self.out}: only goes with a folder of volumes; FashionMNIST goes to its DIR")
        from jaxvae.data import fashion_mnist

        directory = self.data.removeprefix(PREFIX)
        fashion_mnist.download(directory)
        print(
            f"{directory}: FashionMNIST is there; next: {command('train', 'RUN', '--data', self.data, '--hold-out', 8)}"
        )
