"""The paper's FashionMNIST figure: one class is held out of training and detected among the test images.

    python -m experiments.fashion_mnist --data DIR      # the folder of the four IDX files
    python -m experiments.fashion_mnist --data DIR --quick --out quick      # 12 runs of one epoch

Four panels: latent size, scaling (how often an image is stacked), log_scale of the decoder, and held-out class. Class 5
is there twice, the second time with the paper's tuned log_scale of 1.4. Each run takes 25 epochs with batch 128 and
Adam 1e-3. Three seeds and two arithmetics (`jaxvae/parity.py` explains them) make 150 runs.

On two cores a run takes 40 s or more, up to eleven minutes at scaling 16, and all of them 8.5 hours. Only the scaling
and the arithmetic change shapes. So an accelerator trains ten programs, and compiles the next ones while one runs.
Finished programs are kept in results/fashion_mnist_runs.jsonl, and the same command continues from there. Writes
results/fashion_mnist.json, .md and .png, and prints the distance of each panel from the paper. `paper` is a value
digitised from its figure, to about 0.01.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

import jaxvae
from experiments import record, winners
from jaxvae import files, parity
from jaxvae.data import fashion_mnist
from jaxvae.errors import InputError
from jaxvae.population import axes
from jaxvae.progress import Bar
from jaxvae.report import bars, style, tables

# Zimmerer et al. 2019, FashionMNIST figure, digitised: AUROC of (rec, kl, elbo).
PAPER: dict[str, dict[Any, tuple[float, float, float]]] = {
    "latent_size": {
        5: (0.584, 0.552, 0.596),
        10: (0.572, 0.572, 0.592),
        20: (0.576, 0.580, 0.596),
        50: (0.576, 0.588, 0.596),
        100: (0.576, 0.592, 0.599),
        200: (0.588, 0.552, 0.588),
    },
    "scaling": {
        1: (0.574, 0.578, 0.595),
        2: (0.565, 0.604, 0.595),
        4: (0.569, 0.604, 0.591),
        8: (0.548, 0.625, 0.582),
        16: (0.544, 0.617, 0.569),
    },
    "log_scale": {
        0.5: (0.641, 0.354, 0.582),
        0.0: (0.573, 0.578, 0.594),
        -0.5: (0.561, 0.615, 0.594),
        -0.75: (0.561, 0.599, 0.586),
        -1.0: (0.557, 0.628, 0.582),
        -1.1: (0.552, 0.607, 0.578),
    },
    "held_out_class": {
        0: (0.57, 0.57, 0.59),
        1: (0.75, 0.49, 0.73),
        2: (0.60, 0.48, 0.58),
        3: (0.66, 0.48, 0.63),
        4: (0.57, 0.57, 0.58),
        5: (0.77, 0.42, 0.72),
        "5*": (0.72, 0.84, 0.73),
        6: (0.52, 0.34, 0.48),
        7: (0.53, 0.62, 0.58),
        8: (0.92, 0.73, 0.92),
        9: (0.74, 0.87, 0.81),
    },
}
SCORES = {"rec": "nll", "kl": "kl", "elbo": "elbo"}
DEFAULT = {"latent_size": 20, "scaling": 1, "log_scale": 0.0, "held_out_class": 0}
TUNED = {**DEFAULT, "held_out_class": 5, "log_scale": 1.4}
Setting = dict[str, Any]
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # images and classes of training, then of the test
Arithmetic = Literal["released", "corrected"]


WINS = ["arithmetic", "score", "settings", "wins", "share", "mean", "spread", "worst"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the missing runs, compare with the paper."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data" / "fashion-mnist"
    """the folder of the four IDX files"""
    panels: tuple[str, ...] = ("held_out_class", "log_scale", "latent_size", "scaling")
    """panels to train"""
    arithmetics: tuple[Arithmetic, ...] = ("released", "corrected")
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 25
    runs_per_program: int | None = None
    """runs that train as one program (default: 3 on a CPU, else all that can)"""
    train: bool = True
    """train the missing runs; otherwise only summarize the finished ones"""
    out: Path = record.RESULTS
    """the folder of the results"""
    quick: bool = False
    """one panel, one seed and one epoch, to try everything: needs another `--out`"""


def settings_of(panel: str) -> dict[Any, Setting]:
    """The setting of each value of a panel."""
    return {value: TUNED if value == "5*" else {**DEFAULT, panel: value} for value in PAPER[panel]}


def missing(config: Config, done: list[Setting]) -> list[tuple[Setting, list[Setting]]]:
    """(program, its runs): the programs that remain to be trained, each setting once."""
    have = {json.dumps(row["run"], sort_keys=True) for row in done}
    on_cpu = jax.default_backend() == "cpu"
    alike: dict[tuple[Any, ...], list[Setting]] = {}
    for panel, arithmetic in itertools.product(config.panels, config.arithmetics):
        for setting, seed in itertools.product(settings_of(panel).values(), config.seeds):
            run = {**setting, "arithmetic": arithmetic, "seed": seed, "epochs": config.epochs}
            if (name := json.dumps(run, sort_keys=True)) not in have:
                have.add(name)
                # A CPU pads no latents. The last bits of a run depend on the others of its program.
                apart = (panel, setting["latent_size"]) if on_cpu else ()
                alike.setdefault((arithmetic, setting["scaling"], *apart), []).append(run)
    programs = []
    for (arithmetic, scaling, *_), runs in alike.items():
        size = config.runs_per_program or (3 if on_cpu else len(runs))
        for start in range(0, len(runs), size):
            members = runs[start : start + size]
            largest = max(run["latent_size"] for run in members)
            programs.append(({"arithmetic": arithmetic, "scaling": scaling, "latent_size": largest}, members))
    # The longest programs begin to compile first.
    return programs if on_cpu else sorted(programs, key=lambda it: -it[0]["scaling"] * len(it[1]))


class Training(NamedTuple):
    """The arguments of a program, but for its images."""

    model: jaxvae.DenseVAE
    config: jaxvae.TrainConfig
    population: jaxvae.Population
    options: dict[str, Any]  # of fit_many
    keys: jax.Array | None  # of score_many
    scoring: dict[str, Any]  # of score_many


def training_of(program: Setting, runs: list[Setting], classes: np.ndarray, epochs: int) -> Training:
    """One program. Smaller latents are padded to the largest of its runs."""
    arithmetic = parity.ARITHMETICS[program["arithmetic"]]
    model = jaxvae.DenseVAE((28 * program["scaling"], 28, 1), latent_size=program["latent_size"])
    config = jaxvae.TrainConfig(batch_size=128)
    names = {"seed": "seed", "log_scale": "log_scale", "held_out_class": "hold_out", "latent_size": "latent_size"}
    columns = {axis: [run[name] for run in runs] for name, axis in names.items()}
    if min(columns["latent_size"]) == model.latent_size:
        del columns["latent_size"]
    population = axes.of_columns(columns, classes)
    assert population.index is not None
    steps = epochs * (population.index.shape[1] // config.batch_size)
    keys = jax.vmap(jax.random.key)(population.seed) if arithmetic.at_draw else None
    scoring = {"log_scale": population.hparams.log_scale, "score": arithmetic.sample_scores}
    options = {"steps": steps, "objective": arithmetic.objective}
    return Training(model, config, population, options, keys, scoring)


def compile_program(program: Setting, runs: list[Setting], data: Data, epochs: int) -> None:
    """Compile what `train` runs."""
    images, classes, test, _ = data
    it = training_of(program, runs, classes, epochs)
    shapes = [jax.ShapeDtypeStruct((len(part), *it.model.image_shape), part.dtype) for part in (images, test)]
    states = jaxvae.compile_fit_many(it.model, it.config, it.population, shapes[0], **it.options)
    jaxvae.compile_score_many(it.model, states.params, shapes[1], it.keys, **it.scoring)


def train(program: Setting, runs: list[Setting], data: Data, epochs: int) -> list[Setting]:
    """Train runs as one program and score the test images; returns one row per run."""
    images, classes, test, test_classes = data
    it, tiles = training_of(program, runs, classes, epochs), (1, program["scaling"], 1, 1)
    started = time.perf_counter()
    states, metrics = jaxvae.fit_many(
        it.model, it.config, it.population, jax.device_put(np.tile(images, tiles)), **it.options
    )
    found = jaxvae.score_many(it.model, states.params, jax.device_put(np.tile(test, tiles)), it.keys, **it.scoring)
    losses, scores = jax.device_get((metrics.loss, found))
    rows = []
    for r, run in enumerate(runs):
        odd = test_classes == run["held_out_class"]
        aurocs = {name: jaxvae.auroc(getattr(scores, field)[r], odd) for name, field in SCORES.items()}
        rows.append({"run": run, "auroc": aurocs, "loss": float(losses[r, -1])})
    seconds = (time.perf_counter() - started) / len(runs)
    return [{**row, "seconds": round(seconds, 1)} for row in rows]


def summary(config: Config, done: list[Setting]) -> list[dict[str, Any]]:
    """One row per panel, value, arithmetic and score: mean and spread over the seeds, and the paper's value."""
    by_run = {json.dumps(row["run"], sort_keys=True): row["auroc"] for row in done}
    rows = []
    for panel, arithmetic in itertools.product(PAPER, config.arithmetics):
        for value, setting in settings_of(panel).items():
            runs = [
                {**setting, "arithmetic": arithmetic, "seed": seed, "epochs": config.epochs} for seed in config.seeds
            ]
            found = [by_run.get(json.dumps(run, sort_keys=True)) for run in runs]
            found = [aurocs for aurocs in found if aurocs is not None]
            for place, score in enumerate(SCORES):
                values = [aurocs[score] for aurocs in found]
                if values:
                    rows.append(
                        {
                            "panel": panel,
                            "value": value,
                            "arithmetic": arithmetic,
                            "score": score,
                            "auroc_mean": float(np.mean(values)),
                            "auroc_std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                            "seeds": len(values),
                            "paper": PAPER[panel][value][place],
                        }
                    )
    return rows


def distances(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean absolute difference from the paper: one row per panel and arithmetic, one column per score."""
    table = []
    for panel, arithmetic in itertools.product(PAPER, ("released", "corrected")):
        part = [row for row in rows if (row["panel"], row["arithmetic"]) == (panel, arithmetic)]
        if part:
            of = {
                score: [abs(row["auroc_mean"] - row["paper"]) for row in part if row["score"] == score]
                for score in SCORES
            }
            means = {score: float(np.mean(values)) for score, values in of.items()}
            table.append({"panel": panel, "arithmetic": arithmetic, "values": len(part) // len(SCORES), **means})
    return table


def over_settings(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How often each score wins: one row per arithmetic and score. A setting of several panels counts once."""
    table = []
    for arithmetic in ("released", "corrected"):
        cases: dict[str, dict[str, float]] = {}
        for row in rows:
            if row["arithmetic"] == arithmetic:
                setting = json.dumps(settings_of(row["panel"])[row["value"]], sort_keys=True)
                cases.setdefault(setting, {})[row["score"]] = row["auroc_mean"]
        if cases:
            found = winners.wins(list(cases.values()), list(SCORES))
            table += [{"arithmetic": arithmetic, **row} for row in found]
    return table


def by_class(rows: list[dict[str, Any]]) -> str:
    """Markdown table of every held-out class: the paper's value and ours, averaged over seeds."""
    values = PAPER["held_out_class"]
    table = [
        {"score": score, "AUROC": "paper", **{str(value): paper[place] for value, paper in values.items()}}
        for place, score in enumerate(SCORES)
    ]
    for row in rows:
        if row["panel"] == "held_out_class":
            of = {"score": row["score"], "AUROC": row["arithmetic"]}
            line = next((line for line in table if line.items() >= of.items()), None)
            if line is None:
                table.append(line := of)
            line[str(row["value"])] = row["auroc_mean"]
    table.sort(
        key=lambda line: (list(SCORES).index(line["score"]), line["AUROC"] != "paper", line["AUROC"] != "released")
    )
    return tables.markdown(table, ["score", "AUROC", *map(str, values)], best={})


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw bars, one row per arithmetic and one column per panel, with error bars over seeds and the paper's values."""
    from matplotlib.figure import Figure

    arithmetics = list(dict.fromkeys(row["arithmetic"] for row in rows))
    figure = Figure(figsize=(16, 3.4 * len(arithmetics)), layout="constrained")
    grid = figure.subplots(
        len(arithmetics), len(PAPER), squeeze=False, sharey=True, width_ratios=[*map(len, PAPER.values())]
    )
    colours = {score: style.LINES[name].colour for score, name in SCORES.items()}
    labels = {"rec": "Rec", "kl": "KL", "elbo": "ELBO"}
    missing = {"auroc_mean": np.nan, "auroc_std": None, "paper": np.nan}
    for (line, arithmetic), (column, panel) in itertools.product(enumerate(arithmetics), enumerate(PAPER)):
        axes, values = grid[line, column], list(PAPER[panel])
        here = {(r["score"], r["value"]): r for r in rows if (r["panel"], r["arithmetic"]) == (panel, arithmetic)}
        found = {score: [here.get((score, value), missing) for value in values] for score in SCORES}
        drawn = [
            bars.Bars(labels[score], colours[score], [r["auroc_mean"] for r in of], [r["auroc_std"] or 0 for r in of])
            for score, of in found.items()
        ]
        middles = bars.draw(axes, list(map(str, values)), drawn)
        paper = np.array([[r["paper"] for r in of] for of in found.values()], float)
        axes.hlines(paper.ravel(), middles.ravel() - 0.13, middles.ravel() + 0.13, color="black", lw=1.6, label="paper")
        axes.axhline(0.5, color="grey", lw=0.6, ls=":")
        axes.set(xlabel=panel.replace("_", " "), ylim=(0.2, 1))
        axes.set_xlim(-0.6, len(values) - 0.4)
    for line, arithmetic in enumerate(arithmetics):
        grid[line, 0].set_ylabel(f"AUROC, {arithmetic}")
    grid[0, 0].legend(ncols=2, fontsize=8, frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)


def main(config: Config) -> None:
    record.make_folder(config.out, quick=config.quick)
    if config.quick:
        config = dataclasses.replace(config, panels=("latent_size",), seeds=(0,), epochs=1)
    kept = config.out / "fashion_mnist_runs.jsonl"
    done = files.read_lines(kept) if kept.exists() else []
    todo = missing(config, done) if config.train else []
    if todo:
        parts = fashion_mnist.read(config.data)
        (images, train_classes), (test, test_classes) = parts["train"], parts["test"]
        data = images[..., None], train_classes, test[..., None], test_classes
        ahead = jaxvae.compiled_ahead(
            todo,
            lambda it: compile_program(it[0], it[1], data, config.epochs),
            key=lambda it: (*it[0].values(), len(it[1]), frozenset(run["latent_size"] for run in it[1])),
        )
        for program, runs in Bar(ahead, "programs", total=len(todo)):
            done += train(program, runs, data, config.epochs)
            files.write_lines(kept, done)
    rows = summary(config, done)
    print(
        tables.text(
            rows, ["panel", "value", "arithmetic", "score", "auroc_mean", "auroc_std", "seeds", "paper"], best={}
        )
    )
    print(
        "\nmean absolute difference from the paper\n"
        + tables.text(distances(rows), ["panel", "arithmetic", "values", *SCORES], best={})
    )
    print(
        "\nwhich score has the highest mean AUROC, over all settings\n"
        + tables.text(over_settings(rows), WINS, best={})
    )
    far = tables.markdown(distances(rows), ["panel", "arithmetic", "values", *SCORES], best={})
    won = tables.markdown(over_settings(rows), WINS, best={})
    files.write(config.out / "fashion_mnist.md", f"{by_class(rows)}\n\n{far}\n\n{won}\n".encode())
    draw(config.out / "fashion_mnist.png", rows)
    seconds = [row["seconds"] for row in done] if config.train else None
    record.write("fashion_mnist.json", rows, seconds=seconds, folder=config.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"fashion_mnist: {error}") from None
