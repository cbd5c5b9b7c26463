"""`jaxvae sweep`: all combinations of settings, trained as populations, in one table."""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from jaxvae.cli import flags
from jaxvae.cli.recipe import Recipe, is_dense
from jaxvae.cli.source import Source, is_fashion_mnist, is_volumes, open_splits, to_config
from jaxvae.cli.words import counted, flag, spaced
from jaxvae.errors import ArgumentError, InputError

if TYPE_CHECKING:
    from jaxvae.cli.train import Train
    from jaxvae.data.dataset import Splits

    Opened = Callable[[Source], Splits]

# Axes that are flags of the data with several values, and `train`'s name of each.
OF_DATA = {"image_size": "size", "input_scaling": "scaling", "held_out_class": "hold_out"}
DISTRIBUTED = (
    "several processes that share the folder take turns at the programs: auto under SLURM, Open MPI, Kubernetes and on "
    "TPU pods, else HOST:PORT/I/N (process 0's address, this process, how many; start process 0 first)"
)
# Axes along which runs of one program differ.
FREE = ("seed", "learning_rate", "beta", "log_scale", "latent_size")
# Axes that change shapes or data: each combination is a program of its own, or several.
FIXED = (*OF_DATA, "width")


@dataclass(frozen=True)
class Sweep:
    """Train every combination of settings as one program a shape.

    Several values make an axis. The same command on the same folder does what is missing there.
    """

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]
    """the folder of the sweep: made if missing, continued if it holds one of the same flags"""
    source: Source = field(default_factory=Source)
    recipe: Recipe = field(default_factory=Recipe)
    seed: Annotated[tuple[int, ...], flags.several("INT")] = (0, 1, 2)
    """axis: decides the first weights, the order of the images and the noise"""
    learning_rate: Annotated[
        tuple[float, ...] | None, flags.several("FLOAT", "as in the paper, dense 1e-3, conv 1e-4")
    ] = None
    """axis: of Adam"""
    beta: Annotated[tuple[float, ...], flags.several("FLOAT")] = (1.0,)
    """axis: weight of the KL term"""
    log_scale: Annotated[tuple[float, ...], flags.several("FLOAT")] = (0.0,)
    """axis: natural logarithm of the decoder's standard deviation"""
    latent_size: Annotated[tuple[int, ...] | None, flags.several("INT", "as in the paper, dense 20, conv 256")] = None
    """axis: dimensions of the latent"""
    held_out_class: Annotated[tuple[int, ...] | None, flags.several("INT", "--hold-out")] = None
    """axis, fashion_mnist only: the class that is the anomaly"""
    input_scaling: Annotated[tuple[int, ...] | None, flags.several("INT", "--scaling")] = None
    """axis, fashion_mnist only: how often each image is stacked"""
    image_size: Annotated[tuple[int, ...] | None, flags.several("INT", "--size")] = None
    """axis: pixels in height and width; each size compiles programs of its own"""
    width: Annotated[tuple[float, ...] | None, flags.several("FLOAT", "1")] = None
    """axis: times the --features, or the --hidden-size; each compiles programs of its own"""
    together: int = 8
    """runs a program: what is lost when the sweep is killed; on an accelerator, as many as fit"""
    distributed: Annotated[str, tyro.conf.arg(help=DISTRIBUTED)] = "off"

    def execute(self) -> None:
        _check(self)
        from jaxvae import __version__, sharding
        from jaxvae.cli import train
        from jaxvae.report import evaluation_tables, sweep_figures
        from jaxvae.sweeps import plan, ranking

        try:
            process, processes = sharding.join(self.distributed)
        except ArgumentError as error:
            raise ArgumentError("distributed", self.distributed, error.problem) from error
        opened = functools.lru_cache(maxsize=1)(_opened)
        fixed = {name: getattr(self, name) for name in FIXED if getattr(self, name)}
        fixed.setdefault("held_out_class", (self.source.hold_out,))
        config, splits = _config(self, {name: values[0] for name, values in fixed.items()}, opened)
        noticed = splits.notices, splits.left_out
        test = {"test": len(splits.test), "anomalous": int(splits.test.labels.sum())}
        del splits  # Its images are needed again only where the programs have no others.
        free = _free_axes(self, config)
        whole = {
            "jaxvae": __version__,
            "data": {**to_config(self.source), "hold_out": None},
            "volumes": config["volumes"],
            "images": config["images"],
            "model": config["model"],
            **config["train"],
            "epochs": config["epochs"],
            "augment": self.recipe.augment,
            "arithmetic": self.recipe.arithmetic,
            "programs": plan.programs_of(fixed, free, self.together),
        }
        memory = _check_memory(self, whole["programs"], opened)
        plan.claim(self.sweep, whole)
        todo = plan.missing(self.sweep, whole)
        if process == 0:
            _announce(self, whole, todo, memory, processes)
            train.record_notices(self.sweep, *noticed)
        # Which programs are whose is decided before anyone begins.
        sharding.wait_for_all("plan")
        _run(self, whole, todo[process::processes], opened)
        # The others are waited for in their folder: a barrier between devices gives up after half an hour.
        while plan.missing(self.sweep, whole):
            time.sleep(1)
        sharding.wait_for_all("table")
        if process > 0:
            return
        rows = plan.write_table(self.sweep, whole)
        axes = [name for name in (*fixed, *free) if name != "seed" and len({row[name] for row in rows}) > 1]
        score = ranking.score_of(rows)
        print(sweep_figures.summary(rows, axes, score))
        if test["test"] and (reason := evaluation_tables.why(test)):
            print(f"whole images are not in the table: {reason}")
        if best := _best(self, rows, axes, score):
            print(f"the best as a run of its own: {best}")
        sweep_figures.figures(self.sweep, rows, axes, score)
        print(
            f"\n{self.sweep}: table.jsonl and table.csv hold {counted(len(rows), 'run')}, the figures lie beside them"
        )


def _check(sweep: Sweep) -> None:
    from jaxvae.data.fashion_mnist import CLASSES

    axes = {name: getattr(sweep, name) for name in (*FREE, *FIXED)}
    for name, values in axes.items():
        if values == ():
            raise InputError(f"{flag(name)} without a value: give at least one")
        if values is not None and len(set(values)) < len(values):
            raise InputError(f"{flag(name)}: {spaced(values)} holds a value twice; give each once")
    flags.refuse_unless_positive("together", sweep.together)
    for name in ("held_out_class", "input_scaling"):
        if getattr(sweep, name) and not is_fashion_mnist(sweep.source):
            raise InputError(f"{flag(name)}: only goes with --data fashion_mnist:DIR")
    if sweep.image_size and is_fashion_mnist(sweep.source):
        raise InputError("--image-size: FashionMNIST is 28x28; leave it out, or use --input-scaling")
    if sweep.image_size and is_volumes(sweep.source):
        raise InputError("--image-size: volumes have the size they were prepared with; prepare them anew")
    for name, of_train in OF_DATA.items():
        if getattr(sweep, name) and getattr(sweep.source, of_train) != getattr(Source(), of_train):
            raise InputError(f"{flag(of_train)} and {flag(name)} say the same; leave one out")
    for held in sweep.held_out_class or ():
        if not 0 <= held < len(CLASSES):
            raise InputError(f"--held-out-class {held}: must lie in 0..{len(CLASSES) - 1}")
    for name in ("image_size", "input_scaling", "width", "learning_rate"):
        for value in axes[name] or ():
            flags.refuse_unless_positive(name, value)


def _as_train(sweep: Sweep, fixed: dict[str, Any]) -> Train:
    """The flags of `train` that a program stands for, but for what its runs differ in."""
    from jaxvae.cli.train import Train

    recipe, width = sweep.recipe, fixed.get("width", 1)
    of_data = {flag: fixed[name] for name, flag in OF_DATA.items() if name in fixed}
    if "size" in of_data:
        of_data["size"] = (of_data["size"],)
    if is_dense(recipe, sweep.source):
        wide = dataclasses.replace(recipe, hidden_size=max(1, round(width * recipe.hidden_size)))
    else:
        wide = dataclasses.replace(recipe, features=tuple(max(1, round(width * count)) for count in recipe.features))
    return Train(
        run=sweep.sweep,
        source=dataclasses.replace(sweep.source, **of_data),
        recipe=wide,
        latent_size=None if sweep.latent_size is None else max(sweep.latent_size),
    )


def _config(sweep: Sweep, fixed: dict[str, Any], opened: Opened) -> tuple[dict[str, Any], Splits]:
    """What decides a program and its images, checked as `train` checks its own."""
    from jaxvae.cli import train

    like = _as_train(sweep, fixed)
    train.check_flags(like)
    splits = opened(like.source)
    return train.run_config(like, splits), splits


def _opened(source: Source) -> Splits:
    """The images of some programs, read and checked once for those that follow each other."""
    from jaxvae.cli import train

    splits = open_splits(source)
    train.check_images(source, splits)
    return splits


def _free_axes(sweep: Sweep, config: dict[str, Any]) -> dict[str, list[Any]]:
    """The axes along which runs of one program differ, with the paper's values filled in."""
    from jaxvae.population.axes import grid

    axes = {
        "seed": list(sweep.seed),
        "learning_rate": list(sweep.learning_rate or [config["hparams"]["learning_rate"]]),
        "beta": list(sweep.beta),
        "log_scale": list(sweep.log_scale),
        "latent_size": list(sweep.latent_size or [config["model"]["latent_size"]]),
    }
    grid(**axes)
    return axes


def _check_memory(sweep: Sweep, programs: list[dict[str, Any]], opened: Opened) -> int:
    """The bytes that the largest program takes, if they are free."""
    largest = max(len(program["runs"]) for program in programs)
    # Programs that differ in the held-out class alone take the same.
    shapes = {
        tuple(program["fixed"].get(name) for name in FIXED if name != "held_out_class"): program for program in programs
    }
    return max(_memory_of(sweep, program["fixed"], largest, opened) for program in shapes.values())


def _memory_of(sweep: Sweep, fixed: dict[str, Any], largest: int, opened: Opened) -> int:
    """The bytes that so many runs of one shape take, if they are free."""
    import jax

    from jaxvae.runs import capacity, checkpoint

    config, splits = _config(sweep, fixed, opened)
    model, free = checkpoint.model_from_config(config["model"]), capacity.free_bytes()
    image_bytes = splits.train.images.nbytes + splits.test.images.nbytes

    def needed(runs: int) -> int:
        # Devices of a processor share its memory, and train one run after the other.
        on_processor = jax.default_backend() == "cpu"
        of_device = runs if on_processor else -(-runs // jax.local_device_count())
        together = 1 if on_processor else of_device
        batch_size = config["train"]["batch_size"]
        return capacity.population_bytes(
            model,
            of_device,
            side_by_side=together,
            batch_size=batch_size,
            scored=len(splits.test),
            image_bytes=image_bytes,
        )

    if free is None or needed(largest) <= free:
        return needed(largest)
    fits = next((runs for runs in range(largest - 1, 0, -1) if needed(runs) <= free), 0)
    if fits:
        there = f"need {needed(largest) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise InputError(f"--together {sweep.together}: {largest} runs {there}; give --together {fits}")
    there = f"{needed(1) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    raise InputError(f"--latent-size, --features: one run alone needs {there}; make the model smaller")


def _announce(sweep: Sweep, whole: dict[str, Any], todo: list[int], memory: int, processes: int) -> None:
    """The plan, before anything is trained."""
    from jaxvae.sweeps import plan

    programs = whole["programs"]
    runs = sum(len(program["runs"]) for program in programs)
    left = sum(len(programs[number]["runs"]) for number in todo)
    done = f", {runs - left} of them done" if left < runs else ""
    seconds = plan.seconds_per_program(sweep.sweep)
    in_turn = -(-len(todo) // processes)
    ahead = f", about {seconds * in_turn / 60:.1f} minutes to go" if seconds and todo else ""
    what = f"{counted(runs, 'run')} in {counted(len(programs), 'program')}{done}"
    print(f"{sweep.sweep}: {what}; {memory / 1e6:.0f} MB at once{ahead}", flush=True)


def _run(sweep: Sweep, whole: dict[str, Any], todo: list[int], opened: Opened) -> None:
    from jaxvae import TrainConfig
    from jaxvae.progress import Bar
    from jaxvae.runs import checkpoint, training
    from jaxvae.runs.config import total_steps
    from jaxvae.sweeps import plan
    from jaxvae.sweeps.program import train_and_test

    bar = Bar(todo, "programs")
    for done, number in enumerate(bar, start=1):
        program = whole["programs"][number]
        config, splits = _config(sweep, program["fixed"], opened)
        started = time.perf_counter()
        rows = train_and_test(
            checkpoint.model_from_config(config["model"]),
            TrainConfig(**config["train"]),
            program["runs"],
            splits,
            total_steps(config),
            sweep.recipe.arithmetic,
            training.AUGMENTATIONS[sweep.recipe.augment],
        )
        rows = [{**program["fixed"], **row} for row in rows]
        seconds = time.perf_counter() - started
        plan.add_part(sweep.sweep, whole, number, rows, seconds)
        if bar.disable:
            print(f"{sweep.sweep}: program {done} of {len(todo)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def _best(sweep: Sweep, rows: list[dict[str, Any]], axes: list[str], score: str) -> str | None:
    """The command that trains the best setting, with its first seed; None where all diverged."""
    from jaxvae.cli import train
    from jaxvae.sweeps import ranking

    best = ranking.over_seeds(rows, axes, score)[0]
    if best["mean"] is None:
        return None
    row = next(row for row in rows if all(row[name] == best[name] for name in axes))
    like = _as_train(sweep, {name: row[name] for name in FIXED if name in row})
    own = {name: row[name] for name in FREE}
    return train.as_command(like.source, dataclasses.replace(like.settings, **own))
