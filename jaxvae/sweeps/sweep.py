"""A sweep from its axes to its table: plan, train what is missing, and rank the settings."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxvae
from jaxvae import sharding
from jaxvae.data import kinds
from jaxvae.data.dataset import Splits
from jaxvae.data.kinds import Source
from jaxvae.errors import ArgumentError, InputError, counted, refuse_unless_positive
from jaxvae.population.axes import grid
from jaxvae.progress import Bar
from jaxvae.runs import capacity, settings
from jaxvae.runs.config import Config, make_config, model_from_config, total_steps
from jaxvae.runs.settings import Recipe, Settings
from jaxvae.runs.training import AUGMENTATIONS
from jaxvae.sweeps import combinations, plan, ranking
from jaxvae.sweeps.combinations import Axes
from jaxvae.sweeps.program import train_and_test
from jaxvae.train import TrainConfig

# A function of the axes of `FIXED` of one program: its configuration, but for what its runs differ in, and its images.
Opened = Callable[[dict[str, Any]], tuple[Config, Splits]]


class Outcome(NamedTuple):
    """A finished sweep."""

    rows: list[plan.Row]  # the table, one row per run
    axes: list[str]  # the axes with several values, but for the seed
    score: str  # the column by which the settings are ranked
    best: tuple[Source, Settings] | None  # the best setting with its first seed; None if a run of each diverged
    test_images: dict[str, int]  # "test", how many there are, and "anomalous", how many of them


def run(
    sweep_dir: Path,
    source: Source,
    recipe: Recipe,
    axes: Axes,
    *,
    runs_per_program: int = 8,
    distributed: str = "off",
    say: Callable[[str], None] = lambda line: None,
) -> Outcome | None:
    """Train every combination of the axes, or what is missing in the folder: what `jaxvae sweep` does.

    Args:
      sweep_dir: the folder of the sweep, made if missing.
      source: the images; axes with several values take precedence.
      recipe: the settings that all runs share.
      axes: the values of the others.
      runs_per_program: how many runs are trained as one program. A killed sweep loses the program it was at.
      distributed: as `where` of `sharding.join`.
      say: called with each line for the user.

    Returns:
      The finished sweep; None in all processes but the first.

    Raises:
      InputError: settings or images are wrong, memory is too small, or the folder holds something else.
    """
    combinations.check(axes)
    refuse_unless_positive("runs_per_program", runs_per_program)
    try:
        process, processes = sharding.join(distributed)
    except ArgumentError as error:
        raise ArgumentError("distributed", distributed, error.problem) from error
    source, fixed = combinations.split(axes, source)
    opened = _opener(source, recipe, axes)
    first = {name: values[0] for name, values in fixed.items()}
    config, splits = opened(first)
    test_images = {"test": len(splits.test), "anomalous": int(splits.test.labels.sum())}
    del splits  # Its images are needed again only if the programs have no others.
    whole = _plan(source, recipe, config, plan.programs_of(fixed, _free(axes, config), runs_per_program))
    memory = _memory(whole["programs"], runs_per_program, opened)
    plan.claim(sweep_dir, whole)
    todo = plan.missing(sweep_dir, whole)
    if process == 0:
        say(_announced(sweep_dir, whole, todo, memory, processes))
        _tell_notices(sweep_dir, opened(first)[1], say)
    # All processes share out the programs before one of them begins.
    sharding.wait_for_all("plan")
    _train(sweep_dir, whole, todo[process::processes], opened)
    # Processes wait for each other's files, because a barrier between devices gives up after half an hour.
    while plan.missing(sweep_dir, whole):
        time.sleep(1)
    sharding.wait_for_all("table")
    return None if process else _outcome(plan.write_table(sweep_dir, whole), source, recipe, test_images)


def _opener(source: Source, recipe: Recipe, axes: Axes) -> Opened:
    """The function that opens a program. It keeps the images for the next program if they are the same."""
    open_training = functools.lru_cache(maxsize=1)(kinds.open_training)

    def opened(fixed: dict[str, Any]) -> tuple[Config, Splits]:
        largest = {"latent_size": max(axes.latent_size)} if axes.latent_size else {}
        own = combinations.source_of(source, fixed)
        shared = combinations.settings_of(recipe, own, {**fixed, **largest})
        settings.check(shared, own)
        splits = open_training(own)
        return make_config(own, splits, shared), splits

    return opened


def _free(axes: Axes, config: Config) -> dict[str, list[Any]]:
    """The values of the axes along which the runs of a program may differ, with the paper's if there are none."""
    paper = {**config["hparams"], "latent_size": config["model"]["latent_size"]}
    free: dict[str, Any] = {name: list(getattr(axes, name) or [paper[name]]) for name in combinations.FREE}
    grid(**free)  # This checks them.
    return free


def _plan(source: Source, recipe: Recipe, config: Config, programs: list[dict[str, Any]]) -> plan.Plan:
    """The content of plan.json."""
    return {
        "jaxvae": jaxvae.__version__,
        "data": {**kinds.to_config(source), "hold_out": None},
        "volumes": config["volumes"],
        "images": config["images"],
        "model": config["model"],
        **config["train"],
        "epochs": config["epochs"],
        "steps": config["steps"],
        "augment": recipe.augment,
        "arithmetic": recipe.arithmetic,
        "programs": programs,
    }


def _memory(programs: list[dict[str, Any]], runs_per_program: int, opened: Opened) -> int:
    """The bytes that the largest program needs.

    Raises:
      InputError: fewer are free.
    """
    largest, free = max(len(program["runs"]) for program in programs), capacity.free_bytes()
    # Programs that differ in the class held out need the same.
    shapes = [{name: value for name, value in program["fixed"].items() if name != "hold_out"} for program in programs]
    different = {tuple(shape.items()): program["fixed"] for shape, program in zip(shapes, programs, strict=True)}
    needs = []
    for fixed in different.values():
        needed = _needed(*opened(fixed))
        needs.append(needed(largest))
        if free is None or needs[-1] <= free:
            continue
        if fits := next((runs for runs in range(largest - 1, 0, -1) if needed(runs) <= free), 0):
            need = f"{largest} runs need {needs[-1] / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
            raise ArgumentError("runs_per_program", runs_per_program, f"{need}; give `runs_per_program` {fits}")
        need = f"{needed(1) / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        raise InputError(f"`latent_size`, `features`: one run alone needs {need}; make the model smaller")
    return max(needs)


def _needed(config: Config, splits: Splits) -> Callable[[int], int]:
    """A function of the number of runs in a program: the bytes it needs at most."""

    def needed(runs: int) -> int:
        # The devices of a CPU share its memory, and train one run after the other.
        on_cpu = jax.default_backend() == "cpu"
        per_device = runs if on_cpu else -(-runs // jax.local_device_count())
        return capacity.population_bytes(
            model_from_config(config["model"]),
            per_device,
            side_by_side=1 if on_cpu else per_device,
            batch_size=config["train"]["batch_size"],
            scored=len(splits.test),
            image_bytes=splits.train.images.nbytes + splits.test.images.nbytes,
        )

    return needed


def _tell_notices(sweep_dir: Path, splits: Splits, say: Callable[[str], None]) -> None:
    """Say what was noticed while the images were read, and list the files that are not used."""
    for notice in splits.notices:
        say(f"  {notice}")
    kinds.record_left_out(sweep_dir, splits)


def _announced(sweep_dir: Path, whole: plan.Plan, todo: list[int], memory: int, processes: int) -> str:
    """How much there is to train, and the time it takes if a program has been trained before."""
    programs = whole["programs"]
    runs = sum(len(program["runs"]) for program in programs)
    left = sum(len(programs[number]["runs"]) for number in todo)
    done = f", {runs - left} of them done" if left < runs else ""
    seconds, rounds = plan.seconds_per_program(sweep_dir), -(-len(todo) // processes)
    ahead = f", about {seconds * rounds / 60:.1f} minutes to go" if seconds and todo else ""
    what = f"{counted(runs, 'run')} in {counted(len(programs), 'program')}{done}"
    return f"{sweep_dir}: {what}; {memory / 1e6:.0f} MB at once{ahead}"


def _train(sweep_dir: Path, whole: plan.Plan, todo: list[int], opened: Opened) -> None:
    """Train and test some programs, and write a part for each."""
    bar = Bar(todo, "programs")
    for done, number in enumerate(bar, start=1):
        program = whole["programs"][number]
        config, splits = opened(program["fixed"])
        started = time.perf_counter()
        rows = train_and_test(
            model_from_config(config["model"]),
            TrainConfig(**config["train"]),
            program["runs"],
            splits,
            total_steps(config),
            config["arithmetic"],
            AUGMENTATIONS[config["augment"]],
        )
        seconds = time.perf_counter() - started
        plan.add_part(sweep_dir, whole, number, [{**program["fixed"], **row} for row in rows], seconds)
        if bar.disable:
            print(f"{sweep_dir}: program {done} of {len(todo)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def _outcome(rows: list[plan.Row], source: Source, recipe: Recipe, test_images: dict[str, int]) -> Outcome:
    """The axes of a table, and its best setting."""
    axes = [name for name in (*combinations.FIXED, *combinations.FREE) if len({row.get(name) for row in rows}) > 1]
    axes = [name for name in axes if name != "seed"]
    score = ranking.score_of(rows)
    first, best = ranking.over_seeds(rows, axes, score)[0], None
    if first["mean"] is not None:
        row = next(row for row in rows if all(row[name] == first[name] for name in axes))
        own = combinations.source_of(source, row)
        best = own, combinations.settings_of(recipe, own, row)
    return Outcome(rows, axes, score, best, test_images)
