"""`jaxvae sweep`: all combinations of settings, trained as populations, in one table."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxvae.cli import flags
from jaxvae.cli.source import Source, is_fashion_mnist, open_splits, to_config
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.dataset import Splits


@dataclass(frozen=True)
class Sweep:
    """Train every combination of settings as one program a shape.

    Several values make an axis. The same command on the same folder does what is missing there.
    """

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]
    """the folder of the sweep: made if missing, continued if it holds one of the same flags"""
    source: Source = field(default_factory=Source)
    seed: Annotated[tuple[int, ...], flags.several("INT")] = (0, 1, 2)
    """axis: decides the first weights, the order of the images and the noise"""
    learning_rate: Annotated[tuple[float, ...], flags.several("FLOAT", "as in the paper, dense 1e-3, conv 1e-4")] = ()
    """axis: of Adam"""
    beta: Annotated[tuple[float, ...], flags.several("FLOAT")] = (1.0,)
    """axis: weight of the KL term"""
    log_scale: Annotated[tuple[float, ...], flags.several("FLOAT")] = (0.0,)
    """axis: natural logarithm of the decoder's standard deviation"""
    latent_size: Annotated[tuple[int, ...], flags.several("INT", "as in the paper, dense 20, conv 256")] = ()
    """axis: dimensions of the latent"""
    held_out_class: Annotated[tuple[int, ...], flags.several("INT", "--hold-out")] = ()
    """axis, fashion_mnist only: the class that is the anomaly"""
    model: Literal["auto", "dense", "conv"] = "auto"
    """dense is the paper's FashionMNIST network, conv its brain network; auto takes dense for fashion_mnist"""
    hidden_size: int = 400
    """dense only: hidden units"""
    features: Annotated[tuple[int, ...], flags.several("INT")] = (16, 32, 64, 256)
    """conv only: channels after each halving of the image"""
    epochs: int = 25
    """times to go through the images"""
    batch_size: Annotated[int | None, flags.optional("INT", "as in the paper, dense 128, conv 64")] = None
    """images a step"""
    arithmetic: Literal["corrected", "released"] = "corrected"
    """released: the published FashionMNIST script's own objective (dense only)"""
    together: int = 8
    """runs a program: what is lost when the sweep is killed; on an accelerator, as many as fit"""
    distributed: str = "off"
    """several processes that share the folder take turns at the programs: auto under SLURM, Open MPI, Kubernetes and on
    TPU pods, else HOST:PORT/I/N (process 0's address, this process, how many)"""

    def execute(self) -> None:
        _check(self)
        from jaxvae import __version__, plan, sharding
        from jaxvae.report import sweeps

        process, processes = sharding.join(self.distributed)
        sources = _sources(self)
        splits = open_splits(sources[0])
        what = _settings(self, splits)
        free = {name: what[name] for name in ("seed", "learning_rate", "beta", "log_scale", "latent_size")}
        fixed = {"held_out_class": [source.hold_out for source in sources]}
        whole = {
            "jaxvae": __version__,
            "data": {**to_config(self.source), "hold_out": None},
            "model": what["model"],
            "batch_size": what["batch_size"],
            "epochs": self.epochs,
            "arithmetic": self.arithmetic,
            "programs": plan.programs_of(fixed, free, self.together),
        }
        memory = _check_memory(self, whole, splits)
        plan.claim(self.sweep, whole)
        todo = plan.missing(self.sweep, whole)
        if process == 0:
            _announce(self, whole, todo, memory)
        # Which programs are whose is decided before anyone begins.
        sharding.wait_for_all("plan")
        _run(self, whole, todo[process::processes], {source.hold_out: source for source in sources}, splits)
        sharding.wait_for_all("table")
        if process > 0:
            return
        rows = plan.write_table(self.sweep, whole)
        axes = [name for name in (*fixed, *free) if name != "seed" and len({row[name] for row in rows}) > 1]
        score = _score_of(rows)
        print(_summary(self, plan.over_seeds(rows, axes, score), axes, score))
        sweeps.figures(self.sweep, rows, axes, score)
        print(f"\n{self.sweep}: table.jsonl and table.csv hold all {len(rows)} runs, the figures lie beside them")


def _check(sweep: Sweep) -> None:
    from jaxvae.data.fashion_mnist import CLASSES

    for name in ("seed", "beta", "log_scale", "features"):
        if not getattr(sweep, name):
            raise InputError(f"--{name.replace('_', '-')} without a value: give at least one")
    for name in ("epochs", "together", "hidden_size"):
        if getattr(sweep, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(sweep, name)}: must be at least 1")
    if sweep.held_out_class and not is_fashion_mnist(sweep.source):
        raise InputError("--held-out-class: only goes with --data fashion_mnist:DIR")
    if sweep.held_out_class and sweep.source.hold_out is not None:
        raise InputError("--hold-out and --held-out-class say the same; leave the first out")
    for held in sweep.held_out_class:
        if not 0 <= held < len(CLASSES):
            raise InputError(f"--held-out-class {held}: must lie in 0..{len(CLASSES) - 1}")


def _sources(sweep: Sweep) -> list[Source]:
    if not sweep.held_out_class:
        return [sweep.source]
    return [dataclasses.replace(sweep.source, hold_out=held) for held in sweep.held_out_class]


def _settings(sweep: Sweep, splits: Splits) -> dict[str, Any]:
    """The axes and the model with the paper's values filled in, checked as `train` checks its own."""
    from jaxvae import sweep as populations
    from jaxvae.cli import train

    like = train.Train(
        run=sweep.sweep,
        source=dataclasses.replace(sweep.source, hold_out=0) if sweep.held_out_class else sweep.source,
        model=sweep.model,
        hidden_size=sweep.hidden_size,
        features=sweep.features,
        epochs=sweep.epochs,
        batch_size=sweep.batch_size,
        latent_size=max(sweep.latent_size, default=None),
        arithmetic=sweep.arithmetic,
    )
    train.check_flags(like)
    train.check_images(like, splits)
    config = train.run_config(like, splits)
    axes = {
        "seed": list(sweep.seed),
        "learning_rate": list(sweep.learning_rate) or [config["hparams"]["learning_rate"]],
        "beta": list(sweep.beta),
        "log_scale": list(sweep.log_scale),
        "latent_size": list(sweep.latent_size) or [config["model"]["latent_size"]],
    }
    try:
        populations.grid(**axes)
    except InputError as error:
        name, _, rest = str(error).partition("=")
        raise InputError(f"--{name.replace('_', '-')} {rest}") from None
    for name, values in axes.items():
        if len(set(values)) < len(values):
            raise InputError(f"--{name.replace('_', '-')}: {_words(values)} holds a value twice; give each once")
    return {**axes, "model": config["model"], "batch_size": config["train"]["batch_size"]}


def _check_memory(sweep: Sweep, whole: dict[str, Any], splits: Splits) -> int:
    """The bytes that the largest program takes, if they are free."""
    import jax

    from jaxvae import capacity, checkpoint

    model, free = checkpoint.model_from_config(whole["model"]), capacity.free_bytes()

    def needed(runs: int) -> int:
        together = 1 if jax.default_backend() == "cpu" else runs
        return capacity.population_bytes(model, runs, together=together, images=splits.train.images.nbytes)

    largest = max(len(program["runs"]) for program in whole["programs"])
    if free is None or needed(largest) <= free:
        return needed(largest)
    fits = next((runs for runs in range(largest - 1, 0, -1) if needed(runs) <= free), 0)
    if fits:
        there = f"need {needed(largest) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise InputError(f"--together {sweep.together}: {largest} runs {there}; give --together {fits}")
    there = f"{needed(1) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    raise InputError(f"--latent-size, --features: one run alone needs {there}; make the model smaller")


def _announce(sweep: Sweep, whole: dict[str, Any], todo: list[int], memory: int) -> None:
    """The plan, before anything is trained."""
    from jaxvae import plan

    programs = whole["programs"]
    runs = sum(len(program["runs"]) for program in programs)
    left = sum(len(programs[number]["runs"]) for number in todo)
    done = f", {runs - left} of them done" if left < runs else ""
    seconds = plan.seconds_a_program(sweep.sweep)
    ahead = f", about {seconds * len(todo) / 60:.1f} minutes to go" if seconds and todo else ""
    print(
        f"{sweep.sweep}: {runs} runs in {len(programs)} programs{done}; {memory / 1e6:.0f} MB at once{ahead}",
        flush=True,
    )


def _run(
    sweep: Sweep, whole: dict[str, Any], todo: list[int], sources: dict[int | None, Source], splits: Splits
) -> None:
    from tqdm import tqdm

    from jaxvae import TrainConfig, checkpoint, plan, programs

    held = next(iter(sources))
    model, config = checkpoint.model_from_config(whole["model"]), TrainConfig(batch_size=whole["batch_size"])
    for number in tqdm(todo, "programs", disable=None):
        program = whole["programs"][number]
        if program["fixed"]["held_out_class"] != held:
            held = program["fixed"]["held_out_class"]
            splits = open_splits(sources[held])
        started = time.perf_counter()
        rows = [
            {**program["fixed"], **row}
            for row in programs.train_and_judge(model, config, program["runs"], splits, sweep.epochs, sweep.arithmetic)
        ]
        plan.add_part(sweep.sweep, whole, number, rows, time.perf_counter() - started)


def _score_of(rows: list[dict[str, Any]]) -> str:
    """What settings are compared by: pixels where there are masks."""
    names = {name for row in rows for name in row}
    for name in ("pixel_average_precision/elbo_grad", "image_auroc/elbo"):
        if name in names:
            return name
    return "loss"


def _summary(sweep: Sweep, settings: list[dict[str, Any]], axes: list[str], score: str) -> str:
    from jaxvae.report import tables

    columns = [*axes, "mean", "std", "lowest", "seeds", "diverged"]
    shown = tables.text(settings[:20], columns, best={"mean": max, "lowest": max})
    more = f"\n... and {len(settings) - 20} more settings" if len(settings) > 20 else ""
    return f"{score} over the seeds, best first\n{shown}{more}"


def _words(values: list[Any]) -> str:
    return " ".join(map(str, values))
