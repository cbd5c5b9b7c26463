"""A sweep from its axes to its table: plan, train what is missing, rank."""

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jaxvae
from jaxvae import sharding
from jaxvae.data import kinds
from jaxvae.data.dataset import Splits
from jaxvae.errors import ArgumentError, InputError, counted, refuse_unless_positive
from jaxvae.models.model import has_own_prior
from jaxvae.ops.forms import platform_here
from jaxvae.population.ahead import compiled_ahead
from jaxvae.population.axes import grid
from jaxvae.population.fit_many import side_by_side_on
from jaxvae.progress import Bar
from jaxvae.runs import capacity, score_names, settings
from jaxvae.runs.config import Config, make_config, model_from_config, objective_of
from jaxvae.runs.settings import Recipe, Settings
from jaxvae.sweeps import combinations, comparison, plan
from jaxvae.sweeps.combinations import Axes
from jaxvae.sweeps.program import Shapes, compile_program, shapes_of, train_and_test

# A function of the axes of `FIXED` of one program: its configuration, but for what its runs differ in, and its images.
Opened = Callable[[dict[str, Any]], tuple[Config, Splits]]
# What `compile_program` needs of a program.
Form = tuple[Config, Shapes]


class Outcome(NamedTuple):
    """A finished sweep."""

    rows: list[comparison.Row]  # the table, one row per run
    axes: list[str]  # the axes with several values, but for the seed
    score: str  # the column by which the settings are ranked
    best: tuple[kinds.Source, Settings] | None  # the best setting with its first seed; None if a run of each diverged
    test_images: dict[str, int]  # "test", how many there are, and "anomalous", how many of them


def run(
    sweep_dir: Path,
    source: kinds.Source,
    recipe: Recipe,
    axes: Axes,
    *,
    maps: Sequence[str] = (),
    runs_per_program: int = 8,
    distributed: str = "off",
    say: Callable[[str], None] = lambda line: None,
) -> Outcome | None:
    """Train every combination of the axes, or the missing ones: `jaxvae sweep`.

    Args:
      sweep_dir: the folder of the sweep, made if missing.
      source: the images; axes with several values take precedence.
      recipe: the settings that all runs share.
      axes: the values of the others.
      maps: scores of methods (`scores.METHODS`) that the table has too; fitted for each run if they need it.
      runs_per_program: runs trained as one program. A killed sweep loses the program it was at.
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
    _check_axes(source, recipe, axes, config, maps)
    test_images = {"test": len(splits.test), "anomalous": int(splits.test.labels.sum())}
    del splits  # `opened` keeps them as long as no other images are opened.
    whole = _plan(source, config, maps, plan.programs_of(fixed, _free(axes, config), runs_per_program))
    forms = _forms(whole["programs"], opened)
    memory = _memory(whole["programs"], runs_per_program, forms)
    plan.claim(sweep_dir, whole)
    todo = plan.missing(sweep_dir, whole)
    if process == 0:
        say(_announced(sweep_dir, whole, todo, memory, processes))
        for notice in opened(first)[1].notices:
            say(f"  {notice}")
        kinds.record_left_out(sweep_dir, opened(first)[1])
    # All processes share out the programs before one of them begins.
    sharding.wait_for_all("plan")
    _train(sweep_dir, whole, todo[process::processes], opened, forms)
    # Processes wait for each other's files, because a barrier between devices gives up after half an hour.
    while plan.missing(sweep_dir, whole):
        time.sleep(1)
    sharding.wait_for_all("table")
    return None if process else _outcome(plan.write_table(sweep_dir, whole), source, recipe, test_images)


def _check_axes(source: kinds.Source, recipe: Recipe, axes: Axes, config: Config, maps: Sequence[str]) -> None:
    """Raise ArgumentError if an axis has no effect, or if the runs do not have a score."""
    for name in ("learning_rate", "beta", "log_scale", "latent_size"):
        for value in getattr(axes, name) or ():
            settings.check(combinations.settings_of(recipe, source, {name: value}), source)
    model = model_from_config(config["model"])
    score_names.check_maps(model, objective_of(config), maps)
    if len(axes.latent_size or ()) > 1 and (has_own_prior(model) or "likelihood_ratio" in maps):
        why = "likelihood_ratio" if "likelihood_ratio" in maps else f"`model` {recipe.model}"
        raise ArgumentError("latent_size", axes.latent_size, f"{why} needs one value; make a sweep for each")


def _opener(source: kinds.Source, recipe: Recipe, axes: Axes) -> Opened:
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
    if not paper["latent_size"]:
        del paper["latent_size"]
    names = [name for name in combinations.FREE if name == "seed" or name in paper]
    free: dict[str, Any] = {name: list(getattr(axes, name) or [paper[name]]) for name in names}
    grid(**free)  # This checks them.
    return free


def _plan(source: kinds.Source, config: Config, maps: Sequence[str], programs: list[dict[str, Any]]) -> plan.Plan:
    """The content of plan.json: the programs, and all settings that they share."""
    shared = ("volumes", "images", "model", "epochs", "steps", "augment", "arithmetic", "objective")
    own = {"data": {**kinds.to_config(source), "hold_out": None}, **{name: config[name] for name in shared}}
    return {"jaxvae": jaxvae.__version__, **own, **config["train"], "maps": list(maps), "programs": programs}


def _form(program: dict[str, Any]) -> str:
    """The name of a program's shapes, which do not depend on the class that is held out."""
    return str({**program["fixed"], "hold_out": None})


def _forms(programs: list[dict[str, Any]], opened: Opened) -> dict[str, Form]:
    """The configuration and shapes of all programs, by `_form`."""
    found = {}
    for name, fixed in {_form(program): program["fixed"] for program in programs}.items():
        config, splits = opened(fixed)
        found[name] = config, shapes_of(splits)
    return found


def _memory(programs: list[dict[str, Any]], runs_per_program: int, forms: dict[str, Form]) -> int:
    """The bytes that the largest program needs. Raises InputError if fewer are free."""
    largest, free, most = max(len(program["runs"]) for program in programs), capacity.free_bytes(), 0
    for form in forms.values():
        most = max(most, needed := _bytes(form, largest))
        if free is None or needed <= free:
            continue
        free_too = f", and {free / 1e9:.1f} GB are free"
        if fits := next((runs for runs in range(largest - 1, 0, -1) if _bytes(form, runs) <= free), 0):
            need = f"{largest} runs need {needed / 1e9:.1f} GB{free_too}; give `runs_per_program` {fits}"
            raise ArgumentError("runs_per_program", runs_per_program, need)
        need = f"{_bytes(form, 1) / 1e9:.1f} GB{free_too}; make the model smaller"
        raise InputError(f"`latent_size`, `features`: one run alone needs {need}")
    return most


def _bytes(form: Form, runs: int) -> int:
    """The bytes that a program of so many runs needs at most."""
    config, shapes = form
    model = model_from_config(config["model"])
    # The devices of a CPU share its memory.
    per_device = runs if jax.default_backend() == "cpu" else -(-runs // jax.local_device_count())
    together = side_by_side_on(platform_here(), model, per_device)
    sizes = {"side_by_side": together, "batch_size": config["train"]["batch_size"]}
    image_bytes = sum(math.prod(part.shape) * part.dtype.itemsize for part in (shapes.train, shapes.test))
    return capacity.population_bytes(model, per_device, **sizes, scored=shapes.test.shape[0], image_bytes=image_bytes)


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


def _train(sweep_dir: Path, whole: plan.Plan, todo: list[int], opened: Opened, forms: dict[str, Form]) -> None:
    """Train and test some programs, and write a part for each. The next ones are compiled meanwhile."""
    programs = whole["programs"]

    def compile_one(number: int) -> None:
        config, shapes = forms[_form(programs[number])]
        compile_program(config, programs[number]["runs"], shapes)

    def key(number: int) -> tuple[Any, ...]:
        runs = programs[number]["runs"]
        return _form(programs[number]), len(runs), frozenset(run.get("latent_size") for run in runs)

    bar = Bar(compiled_ahead(todo, compile_one, key=key), "programs", total=len(todo))
    for done, number in enumerate(bar, start=1):
        program = programs[number]
        config, splits = opened(program["fixed"])
        started = time.perf_counter()
        rows = [{**program["fixed"], **row} for row in train_and_test(config, program["runs"], splits, whole["maps"])]
        seconds = time.perf_counter() - started
        plan.add_part(sweep_dir, whole, number, rows, seconds)
        if bar.disable:
            print(f"{sweep_dir}: program {done} of {len(todo)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def _outcome(rows: list[comparison.Row], source: kinds.Source, recipe: Recipe, test_images: dict[str, int]) -> Outcome:
    """The axes of a table, and its best setting."""
    names = (*combinations.FIXED, *(name for name in combinations.FREE if name != "seed"))
    axes = [name for name in names if len({row.get(name) for row in rows}) > 1]
    score = comparison.score_of(rows)
    first, best = comparison.over_seeds(rows, axes, score)[0], None
    if first["mean"] is not None:
        row = next(row for row in rows if all(row[name] == first[name] for name in axes))
        own = combinations.source_of(source, row)
        best = own, combinations.settings_of(recipe, own, row)
    return Outcome(rows, axes, score, best, test_images)
