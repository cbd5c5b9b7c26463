"""`jaxvae sweep`: train all combinations of settings and rank them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jaxvae.cli import flags
from jaxvae.errors import counted
from jaxvae.sweeps import combinations

# A constant, because tyro keeps the line breaks of a longer docstring.
DISTRIBUTED = (
    "several processes that share the folder train different programs: auto under SLURM, Open MPI, Kubernetes and on "
    "TPU pods, else HOST:PORT/I/N (process 0's address, this process, how many; start process 0 first)"
)


MAPS = flags.named_maps("scores that the table has too; the first eight are there if the images have masks", "none")


@dataclass(frozen=True)
class Source(flags.Source):
    """Which images, and how they are prepared and split."""

    # These are axes here, see `Axes`.
    hold_out: tyro.conf.SuppressFixed[tyro.conf.Fixed[int | None]] = None
    scaling: tyro.conf.SuppressFixed[tyro.conf.Fixed[int]] = 1
    size: tyro.conf.SuppressFixed[tyro.conf.Fixed[tuple[int, ...] | None]] = None


@dataclass(frozen=True)
class Axes(combinations.Axes):
    """The values of each setting, of which all combinations are trained."""

    seed: Annotated[tuple[int, ...], flags.several("INT")] = (0, 1, 2)
    learning_rate: Annotated[tuple[float, ...] | None, flags.several("FLOAT", flags.papers("learning_rate"))] = None
    beta: Annotated[tuple[float, ...], flags.several("FLOAT")] = (1.0,)
    log_scale: Annotated[tuple[float, ...], flags.several("FLOAT")] = (0.0,)
    latent_size: Annotated[tuple[int, ...] | None, flags.several("INT", flags.papers("latent_size"))] = None
    hold_out: Annotated[tuple[int, ...] | None, flags.several("INT", "none")] = None
    scaling: Annotated[tuple[int, ...] | None, flags.several("INT", "1")] = None
    size: Annotated[tuple[int, ...] | None, flags.several("INT", "phantom 64, folders as they are")] = None
    width: Annotated[tuple[float, ...] | None, flags.several("FLOAT", "1")] = None


@dataclass(frozen=True)
class Sweep:
    """Train every combination of settings, many runs at a time.

    Several values make an axis. The same command on the same folder trains what is missing there.
    """

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]
    """the folder of the sweep: made if missing, continued if it holds one made with the same flags"""
    source: Source = field(default_factory=Source)
    recipe: Annotated[flags.Recipe, tyro.conf.arg(name="settings")] = field(default_factory=flags.Recipe)
    axes: Axes = field(default_factory=Axes)
    maps: Annotated[tuple[flags.MapName, ...], MAPS] = ()
    runs_per_program: int = 8
    """number of runs in one program; on a GPU, as many as fit; a killed sweep repeats its current program"""
    distributed: Annotated[str, tyro.conf.arg(help=DISTRIBUTED)] = "off"

    def execute(self) -> None:
        if self.maps:
            flags.check_maps(self.maps)
        combinations.check(self.axes)  # Before JAX is imported.
        from jaxvae.cli.complaints import with_flags
        from jaxvae.cli.train import as_command
        from jaxvae.report import evaluation_tables, sweep_figures
        from jaxvae.sweeps import sweep

        finished = sweep.run(
            self.sweep,
            self.source,
            self.recipe,
            self.axes,
            maps=self.maps,
            runs_per_program=self.runs_per_program,
            distributed=self.distributed,
            say=lambda line: print(with_flags(line, vars(self.source)), flush=True),
        )
        if finished is None:
            return
        rows, axes, score, best, test_images = finished
        print(sweep_figures.summary(rows, axes, score))
        if test_images["test"] and (reason := evaluation_tables.why(test_images)):
            print(f"the table has no metrics of whole images: {reason}")
        if best:
            print(f"train the best setting with: {as_command(*best)}")
        sweep_figures.figures(self.sweep, rows, axes, score)
        print(f"\n{self.sweep}: {counted(len(rows), 'run')} in table.jsonl and table.csv, with figures")
