"""`jaxvae export`: a run as files that need no jaxvae."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.flags import MapName, check_maps
from jaxvae.errors import refuse_unless_positive
from jaxvae.scores import DEFAULT_MAPS, MAPS

NAMED = flags.named_maps("which maps", f"{' '.join(DEFAULT_MAPS)}, as far as the run has them", MAPS)


@dataclass(frozen=True)
class Export:
    """Write a run as files that need no jaxvae: weights, score program, check.

    The weights are a safetensors file and the score program is StableHLO, for CPUs,
    NVIDIA GPUs and TPUs. `python OUT/check.py` needs jax and numpy only: it scores a
    sample and compares the numbers with those of jaxvae.
    """

    run: flags.Run
    """the run folder"""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """a new folder; an earlier export there is replaced"""
    maps: Annotated[tuple[MapName, ...], NAMED] = ()
    batch_size: int = 48
    """images per call of the program; check.py fills the last batch up"""
    sample: Literal["own", "noise"] = "own"
    """images of the sample: own puts four of the run's own images into OUT"""

    def execute(self) -> None:
        if self.maps:
            check_maps(self.maps)
        refuse_unless_positive("batch_size", self.batch_size)
        from jaxvae.export.run_export import export_run
        from jaxvae.runs.run import load

        settings = {"maps": self.maps or None, "batch_size": self.batch_size, "sample": self.sample}
        print(export_run(load(self.run), self.out, **settings))
        print(f"check it anywhere with `python {self.out / 'check.py'}`")
