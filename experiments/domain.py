"""How much of a result is domain: three kinds of healthy images, one test.

    python -m experiments.domain                      # two hours on two cores; the same command continues
    python -m experiments.domain --quick --out quick  # a trial of minutes

    trained on                            patients  scanner and sequence
    IXI heads                             others    others (T1, healthy volunteers)
    LGG slices of other patients          others    the same study
    LGG slices of the test patients       the same  the same

The test images are the slices with a tumour of 8 LGG patients, in T1 before contrast and in FLAIR. Tumours are hardly
visible in T1 before contrast, and bright in FLAIR. IXI has no FLAIR, so for that test its sequence differs too.

Slices for training have no annotated tumour. All three sets have 8 patients and the same number of slices, and all
models the same steps and seeds. Only the upper half of an IXI head is used, because the slices of LGG begin above the
neck. The slices of a volume are z-scored over the head, once over all of it and once without the pixels of its lesion,
which nobody knows in practice.

Each cell (sequence, training set, normalisation, seed) has a file in `--work`. Voxels are counted at the model's
resolution, inside the head. Intervals are over patients. Writes results/domain.json, .md and .png.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

import jaxvae
from experiments import brain_mri, brain_scans, record
from jaxvae import files
from jaxvae.data.dataset import Dataset, take
from jaxvae.data.volumes import cache
from jaxvae.data.volumes.cache import Cache
from jaxvae.errors import InputError
from jaxvae.evaluation import volume_metrics
from jaxvae.evaluation.volume_tables import VolumeSettings, measure_slices
from jaxvae.ops.spacing import evenly_spaced
from jaxvae.report import bars, style, tables
from jaxvae.train import run_key

SEQUENCES = ("T1", "FLAIR")
TRAINED_ON = ("IXI heads", "other patients", "test patients")
NORMALISED = ("with the lesion", "without the lesion")
SHOWN = ("rec_error", "kl_grad", "rec_grad", "elbo_grad", "combi")
BASELINE = "equalised_brightness"
PATIENTS = 8  # of each training set, and of the test


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, score, tabulate."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data"
    """the folder of the data sets"""
    work: Path = Path("runs/domain")
    """folder of the prepared volumes and the finished cells"""
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 2000
    """training steps of each model"""
    resamples: int = 1000
    """bootstrap resamples of the intervals"""
    out: Path = record.RESULTS
    """the folder of the results"""
    quick: bool = False
    """a trial: one seed and 20 steps; needs another `--out`"""


def renormalised(opened: Cache, *, lesions: bool) -> np.ndarray:
    """The slices z-scored over the head of each volume, with or without its lesion, [N, S, S, 1]."""
    images = np.array(opened.images)
    for volume in opened.volumes:
        part = slice(volume["start"], volume["stop"])
        head = opened.brains[part]
        counted = head if lesions or opened.masks is None else head & ~opened.masks[part]
        mean, spread = images[part][counted].mean(), images[part][counted].std()
        images[part] = np.where(head, (images[part] - mean) / spread, images[part])
    return images


def upper_halves(opened: Cache, images: np.ndarray) -> np.ndarray:
    """The upper half of each of the first heads."""
    ends = [(volume["start"], volume["stop"]) for volume in opened.volumes[:PATIENTS]]
    return np.concatenate([images[(start + stop) // 2 : stop] for start, stop in ends])


def sets(ixi: Cache, lgg: Cache, *, lesions: bool) -> tuple[dict[str, np.ndarray], Dataset]:
    """The training images by name, and the test data.

    Args:
      lesions: whether a volume is z-scored with its lesion.
    """
    images = renormalised(lgg, lesions=lesions)
    every = dataclasses.replace(cache.dataset(lgg), images=images)
    patients = np.random.default_rng(0).permutation(sorted(set(every.groups)))
    tested, others = (np.isin(every.groups, part) for part in (patients[:PATIENTS], patients[PATIENTS : 2 * PATIENTS]))
    found = {
        "IXI heads": upper_halves(ixi, renormalised(ixi, lesions=lesions)),
        "other patients": images[others & ~every.labels],
        "test patients": images[tested & ~every.labels],
    }
    fewest = min(map(len, found.values()))
    spaced = {name: one[evenly_spaced(len(one), fewest)] for name, one in found.items()}
    return spaced, take(every, tested & every.labels)


def rows_of(config: Config, lgg: Cache, train: np.ndarray, test: Dataset, seed: int) -> list[dict[str, Any]]:
    """Train a model and score the test slices: one row per score."""
    model = jaxvae.ConvVAE(train.shape[1:])
    settings, hparams = jaxvae.TrainConfig(batch_size=32), jaxvae.Hyperparams(learning_rate=3e-4)
    state = jaxvae.init(model, settings, hparams, run_key(seed))
    state, metrics = jaxvae.fit(model, settings, hparams, state, jnp.asarray(train), steps=config.steps)
    scores = jaxvae.score_images(model, state.params, test.images, maps=SHOWN)
    measures = measure_slices(lgg, test, scores.maps, {}, VolumeSettings(maps=SHOWN))
    loss = float(np.mean(metrics.loss[-100:]))
    rows = volume_metrics.rows(measures, resamples=config.resamples)
    return [
        {"score": row["score"], "loss": loss, "slices": len(train), "tested": len(test)}
        | {key: row[key] for key in ("average_precision", "auroc", "best_dice")}
        for row in rows
    ]


def opened(config: Config) -> tuple[Cache, dict[str, Cache]]:
    """The heads of IXI, and the slices of LGG in each sequence."""
    where = brain_mri.Config(data=config.data, work=config.work)
    heads, flair = (brain_scans.prepare(task, where, brain_mri.BASE["size"]) for task in ("head", "flair"))
    lgg = dict(zip(SEQUENCES, (heads.tests["LGG T1"], flair.train), strict=True))
    return cache.open_cache(heads.train), {name: cache.open_cache(path) for name, path in lgg.items()}


def finished(config: Config) -> list[dict[str, Any]]:
    """The rows of all cells, from their files or computed now."""
    ixi, tested = opened(config)
    done = []
    for sequence, normalised in itertools.product(SEQUENCES, NORMALISED):
        lgg = tested[sequence]
        training, test = sets(ixi, lgg, lesions=normalised == NORMALISED[0])
        for trained_on, seed in itertools.product(TRAINED_ON, config.seeds):
            name = f"{sequence} {trained_on} {normalised} {seed}".replace(" ", "_")
            decides = {"steps": config.steps, "resamples": config.resamples}
            compute = functools.partial(rows_of, config, lgg, training[trained_on], test, seed)
            found = record.part(config.work / "cells" / f"{name}.json", decides, compute)
            of_cell = {"sequence": sequence, "trained_on": trained_on, "normalised": normalised, "seed": seed}
            done += [{**of_cell, **row, "seconds": found["seconds"]} for row in found["rows"]]
    return done


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per sequence, normalisation, training set and score, averaged over the seeds."""
    found = []
    keys = ("sequence", "normalised", "trained_on", "score")
    for values in itertools.product(SEQUENCES, NORMALISED, TRAINED_ON, (*SHOWN, BASELINE)):
        names = dict(zip(keys, values, strict=True))
        of = [row for row in rows if row.items() >= names.items()]
        ap = np.array([np.broadcast_to(row["average_precision"], 3) for row in of])
        mean, low, high = ap.mean(axis=0).tolist()
        spread = float(ap[:, 0].std(ddof=1)) if len(of) > 1 else 0.0
        auroc = float(np.mean([np.ravel(row["auroc"])[0] for row in of]))
        measured = {"average_precision": mean, "low": low, "high": high, "std": spread, "auroc": auroc}
        found.append({**names, "seeds": len(of), **measured})
    return found


def markdown(found: list[dict[str, Any]]) -> str:
    """One table per sequence: AP by score, with one column per training set and normalisation."""
    parts = []
    for sequence in SEQUENCES:
        lines: dict[str, dict[str, Any]] = {}
        for row in (row for row in found if row["sequence"] == sequence):
            line = lines.setdefault(row["score"], {"score": style.display(row["score"])})
            words = f"{row['average_precision']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
            line[f"{row['trained_on']}, {row['normalised']}"] = words
        rows = list(lines.values())
        parts.append(f"AP of tumours in {sequence}:\n\n{tables.markdown(rows, list(rows[0]))}")
    return "\n\n".join(parts)


def figure(path: Path, found: list[dict[str, Any]]) -> None:
    """AP by sequence and training set, for z-scores with the lesion; the spread is that over seeds."""
    lines, drawn = style.lines((*SHOWN, BASELINE)), []
    for score in (*SHOWN, BASELINE):
        of = [row for row in found if (row["score"], row["normalised"]) == (score, NORMALISED[0])]
        means, spreads = ([row[key] for row in of] for key in ("average_precision", "std"))
        drawn.append(bars.Bars(style.display(score), lines[score].colour, means, spreads))
    ticks = [f"{sequence}\n{trained_on}" for sequence, trained_on in itertools.product(SEQUENCES, TRAINED_ON)]
    bars.figure(path, ticks, drawn, ylabel="average precision of voxels")


def main(config: Config) -> None:
    record.make_folder(config.out, quick=config.quick)
    if config.quick:
        config = dataclasses.replace(config, seeds=(0,), steps=20, resamples=100)
    rows = finished(config)
    found = summary(rows)
    keys = ("sequence", "trained_on", "normalised", "seed")
    seconds = {tuple(row[key] for key in keys): row["seconds"] for row in rows}
    record.write("domain.json", found, seconds=list(seconds.values()), folder=config.out)
    files.write(config.out / "domain.md", f"{markdown(found)}\n".encode())
    figure(config.out / "domain.png", found)
    print(markdown(found))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"domain: {error}") from None
