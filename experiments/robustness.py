"""Anomaly detection on FashionMNIST over thousands of settings, and what can choose a setting without labels.

    python -m experiments.robustness             # 2,700 runs, sized for 6 minutes of one NVIDIA H200
    python -m experiments.robustness --quick --out quick     # 160 short runs, 8 minutes of processor time

Each class is held out of training and detected among the test images, for 135 settings (log_scale, beta, learning rate,
latent size) and two seeds. All runs of a class train as one program of 270 runs. The ten programs have one shape, so
they compile once. 600 training images of each class are kept for validation, without those of the held-out class.

A criterion needs no label: the mean negative ELBO of the validation images with beta 1, its KL or its NLL, at z = mean.
Choosing by a criterion takes the setting with the lowest value. The regret is the best AUROC of any setting minus that
of the chosen one. It is compared with a random setting (on average) and with the default setting.

A step takes 0.0132 ms per run on an H200, by the bytes and products of XLA's program. For 64 runs with latent size 20
the same estimate is 0.0124, and 0.0125 was measured. A run takes 15 epochs of 48,600 // 128 = 379 steps. In all, 2,700
x 5,685 x 0.0132 ms = 203 s. Compilation, scores and their AUROC come on top: on an H200 the first program, with its
compilation, was not finished after two minutes. The program needs 4 GB.

Finished programs are kept in results/robustness_runs.jsonl, and the same command continues from there. Writes
results/robustness.json, .md and .png.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import rankdata

import jaxvae
from experiments import record, winners
from jaxvae import files
from jaxvae.data import fashion_mnist
from jaxvae.errors import ArgumentError, InputError
from jaxvae.metrics.intervals import FEWEST_GROUPS, percentile_interval
from jaxvae.progress import Bar
from jaxvae.report import style, tables

SCORES = ("elbo", "kl", "nll")  # of the test images, and the criteria of the validation images
DEFAULT = {"log_scale": 0.0, "beta": 1.0, "learning_rate": 1e-3, "latent_size": 20}
CHOICES = {**{name: f"lowest validation {style.display(name)}" for name in SCORES}, "default": "default setting"}
CHOICES["random"] = "random setting"
TRAIN_IMAGES = 5400  # of each class; the remaining 600 validate
Row = dict[str, Any]
Groups = dict[tuple[int, int], list[Row]]  # the runs of each held-out class and seed


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the missing runs, summarize all."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data" / "fashion-mnist"
    """the folder of the four IDX files"""
    quick: bool = False
    """two values per axis, one seed, fewer images and epochs: needs another `--out`"""
    classes: tuple[int, ...] = tuple(range(10))
    """held-out classes; the runs of each are one program"""
    log_scale: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    beta: tuple[float, ...] = (0.25, 1.0, 4.0)
    learning_rate: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    latent_size: tuple[int, ...] = (5, 20, 100)
    seeds: tuple[int, ...] = (0, 1)
    epochs: int = 15
    images: int = TRAIN_IMAGES
    """training images of each class"""
    train: bool = True
    """train the missing runs; otherwise only summarize the finished ones"""
    out: Path = record.RESULTS
    """the folder of the results"""


QUICK: dict[str, Any] = {"log_scale": (-1.0, 0.0), "beta": (1.0, 4.0), "learning_rate": (1e-3, 3e-3)}
QUICK |= {"latent_size": (5, 20), "seeds": (0,), "epochs": 5, "images": 1000}


def axes_of(config: Config) -> dict[str, tuple[float, ...]]:
    """The values of each axis, by its name in `jaxvae.grid`."""
    return {**{name: getattr(config, name) for name in DEFAULT}, "seed": config.seeds}


def runs_of(config: Config, held_out: int) -> list[Row]:
    """The runs of a class, in the order of `jaxvae.grid`."""
    axes = axes_of(config)
    fixed = {"held_out_class": held_out, "epochs": config.epochs, "images": config.images}
    return [{**fixed, **dict(zip(axes, values, strict=True))} for values in itertools.product(*axes.values())]


def finished(config: Config, done: list[Row]) -> list[Row]:
    """The rows that belong to the config."""
    wanted = {_name(run) for held_out in config.classes for run in runs_of(config, held_out)}
    return [row for row in done if _name(row["run"]) in wanted]


def missing(config: Config, done: list[Row]) -> list[int]:
    """The classes whose program remains to be trained."""
    have = {_name(row["run"]) for row in done}
    return [c for c in config.classes if not all(_name(run) in have for run in runs_of(config, c))]


def merged(done: list[Row], trained: list[Row]) -> list[Row]:
    """The finished rows with new ones, which replace those of the same runs."""
    again = {_name(row["run"]) for row in trained}
    return [*(row for row in done if _name(row["run"]) not in again), *trained]


def _name(run: Row) -> str:
    return json.dumps(run, sort_keys=True)


def take(images: np.ndarray, classes: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The images [N, 28, 28, 1] and classes of places start..stop within each class."""
    chosen = np.sort(np.concatenate([np.flatnonzero(classes == c)[start:stop] for c in range(10)]))
    return images[chosen, ..., None], classes[chosen]


def train(config: Config, held_out: int, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Row]:
    """Train the runs of a class as one program and score its images; returns one row per run."""
    started = time.perf_counter()
    images, classes = take(*parts["train"], 0, config.images)
    validation, validation_classes = take(*parts["train"], TRAIN_IMAGES, 6000)
    test, test_classes = parts["test"]
    model, settings = jaxvae.DenseVAE((28, 28, 1), latent_size=max(config.latent_size)), jaxvae.TrainConfig(128)
    population = jaxvae.grid(**axes_of(config), hold_out=[held_out], labels=classes)
    steps = config.epochs * (9 * config.images // settings.batch_size)
    states, metrics = jaxvae.fit_many(model, settings, population, jnp.asarray(images), steps=steps)
    healthy = validation[validation_classes != held_out]
    both = jnp.asarray(np.concatenate([test[..., None], healthy]))
    scored = jaxvae.score_many(model, states.params, both, log_scale=population.hparams.log_scale)
    scores = dict(zip(scored._fields, jax.device_get(scored), strict=True))
    losses, labels = np.asarray(metrics.loss[:, -1]), test_classes == held_out
    rows = []
    for r, run in enumerate(runs_of(config, held_out)):
        found = {name: scores[name][r] for name in SCORES}
        if np.isfinite(losses[r]) and all(np.isfinite(values).all() for values in found.values()):
            auroc = {name: jaxvae.auroc(values[: len(test)], labels) for name, values in found.items()}
            criteria = {name: float(values[len(test) :].mean()) for name, values in found.items()}
            rows.append({"run": run, "auroc": auroc, "validation": criteria, "loss": float(losses[r])})
        else:
            rows.append({"run": run, "auroc": None, "validation": None, "loss": None})
    seconds = (time.perf_counter() - started) / len(rows)
    return [{**row, "seconds": round(seconds, 2)} for row in rows]


def groups_of(rows: list[Row]) -> Groups:
    """The runs that did not diverge, by held-out class and seed."""
    groups: Groups = {}
    for row in rows:
        if row["auroc"] is not None:
            groups.setdefault((row["run"]["held_out_class"], row["run"]["seed"]), []).append(row)
    return groups


def over_classes(values: dict[tuple[int, int], float], resamples: int = 2000) -> tuple[float, ...] | float | None:
    """The mean over classes of the mean over seeds, with its 95 % interval over resampled classes if there are enough.

    NaN values, which have no meaning for their class and seed, are left out.
    """
    means = []
    for held_out in dict.fromkeys(held_out for held_out, _ in values):
        seeds = [value for (c, _), value in values.items() if c == held_out and np.isfinite(value)]
        means += [np.mean(seeds)] if seeds else []
    if not means:
        return None
    if len(means) < FEWEST_GROUPS:
        return float(np.mean(means))
    draws = np.random.default_rng(0).integers(len(means), size=(resamples, len(means)))
    return float(np.mean(means)), *percentile_interval(np.array(means)[draws].mean(axis=1))


def distribution(groups: Groups) -> list[Row]:
    """One row per score: its AUROC over all runs, and how often it wins."""
    cases = [row["auroc"] for rows in groups.values() for row in rows]
    table = []
    for won in winners.wins(cases, SCORES):
        values = np.array([case[won["score"]] for case in cases])
        low, median, high = np.percentile(values, [5, 50, 95])
        row = {"score": won["score"], "runs": len(values), "p5": low, "median": median, "p95": high}
        row |= {"below_half": np.mean(values < 0.5), "wins": won["share"]}
        table.append({name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()})
    return table


def correlation(rows: list[Row], criterion: str, score: str) -> float:
    """Spearman's correlation over settings of minus the criterion with the AUROC; NaN if one of them is constant."""
    low = [-row["validation"][criterion] for row in rows]
    auroc = [row["auroc"][score] for row in rows]
    if len({*low}) < 2 or len({*auroc}) < 2:
        return float("nan")
    return float(np.corrcoef(rankdata(low), rankdata(auroc))[0, 1])


def regret(rows: list[Row], choice: str, score: str) -> float:
    """The best AUROC of any setting minus that of the chosen one; NaN if the chosen one is missing.

    Args:
      choice: of `CHOICES`. For a random setting it is the expected regret.
    """
    auroc = np.array([row["auroc"][score] for row in rows])
    if choice == "random":
        return float(auroc.max() - auroc.mean())
    if choice == "default":
        chosen = [i for i, row in enumerate(rows) if row["run"].items() >= DEFAULT.items()]
    else:
        chosen = [int(np.argmin([row["validation"][choice] for row in rows]))]
    return float(auroc.max() - auroc[chosen[0]]) if chosen else float("nan")


def by_choice(groups: Groups, measure: Callable[[list[Row], str, str], float], choices: tuple[str, ...]) -> list[Row]:
    """One row per choice, one column per score: the mean of `correlation` or `regret` over classes, with interval."""

    def cell(choice: str, score: str) -> tuple[float, ...] | float | None:
        return over_classes({group: measure(rows, choice, score) for group, rows in groups.items()})

    return [{"choice": choice, **{score: cell(choice, score) for score in SCORES}} for choice in choices]


def summary(config: Config, done: list[Row]) -> Row:
    """Counts, and the tables `distribution`, `correlation` and `regret`."""
    groups = groups_of(done)
    kept = sum(map(len, groups.values()))
    counts = {"runs": len(done), "diverged": len(done) - kept, "classes": len({c for c, _ in groups})}
    counts |= {"settings": int(np.prod([len(values) for values in axes_of(config).values()])) // len(config.seeds)}
    found = {"distribution": distribution(groups), "correlation": by_choice(groups, correlation, SCORES)}
    return {**counts, "epochs": config.epochs, **found, "regret": by_choice(groups, regret, tuple(CHOICES))}


def in_words(found: Row) -> Iterator[tuple[str, list[Row], dict[str, str]]]:
    """(caption, rows, columns) of each table."""
    heads = {"score": "score", "runs": "runs", "p5": "5th percentile", "median": "median", "p95": "95th percentile"}
    named = [{**row, "score": style.display(row["score"])} for row in found["distribution"]]
    counts = f"{found['settings']} settings, {found['classes']} classes, {found['epochs']} epochs"
    caption = (
        f"AUROC of image scores over {found['runs']} runs ({counts}); {found['diverged']} diverged and are left out"
    )
    yield caption, named, {**heads, "below_half": "share below 0.5", "wins": "share of wins"}
    labels = {score: style.display(score) for score in SCORES}
    rows = [{**row, "choice": f"validation {labels[row['choice']]}"} for row in found["correlation"]]
    caption = "Rank correlation over settings between a low criterion and a high AUROC of a score, mean over classes"
    yield caption, rows, {"choice": "criterion", **labels}
    rows = [{**row, "choice": CHOICES[row["choice"]]} for row in found["regret"]]
    yield "Regret: AUROC below that of the best setting, mean over classes", rows, {"choice": "choice", **labels}


def draw(path: Path, groups: Groups, found: Row) -> None:
    """The distribution of AUROC, the rank correlations and the regrets, side by side."""
    sheet = style.sheet(2100, 640)
    left, middle, right = (style.axes(sheet, x, 70, width, 460) for x, width in ((110, 520), (900, 420), (1640, 420)))
    for score in SCORES:
        values = np.sort([row["auroc"][score] for rows in groups.values() for row in rows])
        shares = np.arange(1, len(values) + 1) / len(values)
        left.step(values, shares, where="post", color=style.LINES[score].colour, label=style.display(score))
    left.axvline(0.5, color=style.MUTED, lw=style.points(1.5), ls=":")
    left.set(ylim=(0, 1))
    style.plain_axes(left, xlabel="AUROC of a run", ylabel="share of runs below")
    _points(middle, found["correlation"], {name: f"validation {style.display(name)}" for name in SCORES})
    style.plain_axes(middle, xlabel="rank correlation with AUROC")
    middle.set_xlim(-1.05, 1.05)
    _points(right, found["regret"], CHOICES)
    style.plain_axes(right, xlabel="regret in AUROC")
    for panel in (middle, right):
        panel.axvline(0, color=style.MUTED, lw=style.points(1.5), ls=":")
        panel.tick_params(axis="y", length=0, colors=style.INK)
    left.legend(frameon=False, loc="upper left", fontsize=style.points(style.SMALL))
    style.save(sheet, path)


def _points(panel: Any, rows: list[Row], labels: dict[str, str]) -> None:
    """One line per row from the top, with a point and an interval for each score."""
    for place, row in enumerate(rows):
        for shift, score in zip((-0.22, 0, 0.22), SCORES, strict=True):
            if row[score] is None:
                continue
            middle, *ends = np.ravel(row[score]).tolist()
            colour = style.LINES[score].colour
            panel.plot(middle, place + shift, "o", color=colour, ms=style.points(11))
            panel.plot(ends or [middle], [place + shift] * (len(ends) or 1), color=colour, lw=style.points(3))
    panel.set_yticks(range(len(rows)), [labels[row["choice"]] for row in rows])
    panel.set_ylim(len(rows) - 0.5, -0.5)


def main(config: Config) -> None:
    config = dataclasses.replace(config, **QUICK) if config.quick else config
    if not 15 <= config.images <= TRAIN_IMAGES:
        raise ArgumentError("images", config.images, f"give 15 to {TRAIN_IMAGES}, the training images of each class")
    record.make_folder(config.out, quick=config.quick)
    kept = config.out / "robustness_runs.jsonl"
    done = files.read_lines(kept)
    if config.train and (todo := missing(config, done)):
        parts = fashion_mnist.read(config.data)
        for held_out in Bar(todo, "programs"):
            done = merged(done, train(config, held_out, parts))
            files.write_lines(kept, done)
    rows = finished(config, done)
    if not groups_of(rows):
        raise InputError(f"{kept}: has no finished run of these settings; leave out --no-train")
    found = summary(config, rows)
    words = list(in_words(found))
    text, markdown = (
        "\n".join(f"{caption}:\n\n{write(lines, columns, best={})}\n" for caption, lines, columns in words)
        for write in (tables.text, tables.markdown)
    )
    print(text)
    files.write(config.out / "robustness.md", markdown.encode())
    draw(config.out / "robustness.png", groups_of(rows), found)
    seconds = [row["seconds"] for row in rows] if config.train else None
    record.write("robustness.json", [found], seconds=seconds, folder=config.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"robustness: {error}") from None
