"""How much of a result is domain: three kinds of healthy images, one test.

    python -m experiments.domain                      # an hour on two cores; the same command continues
    python -m experiments.domain --quick --out quick  # a trial of a minute

    trained on                            patients  scanner and sequence
    IXI heads                             others    others (T1, healthy volunteers)
    LGG slices of other patients          others    the same study (T1 before contrast)
    LGG slices of the test patients       the same  the same

The test images are the slices with a tumour of 8 LGG patients. Slices for training have no annotated tumour. All three
sets have 8 patients and the same number of slices, and all models the same steps and seeds. Of an IXI head only the
upper half is used, because the slices of LGG begin above the neck. The slices of a volume are z-scored over the head,
once over all of it and once without the pixels of its lesion, which nobody knows in practice.

Each cell (training set, normalisation, seed) has a file in `--work`. Voxels are counted at the model's resolution,
inside the head. Intervals are over patients. Writes results/domain.json, .md and .png.
"""

from __future__ import annotations

import dataclasses
import os
import time
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


def finished(config: Config) -> list[dict[str, Any]]:
    """The rows of all cells, from their files or computed now."""
    where = brain_mri.Config(data=config.data, work=config.work)
    prepared = brain_scans.prepare("head", where, brain_mri.BASE["size"])
    ixi, lgg = cache.open_cache(prepared.train), cache.open_cache(next(iter(prepared.tests.values())))
    done = []
    for normalised in NORMALISED:
        training, test = sets(ixi, lgg, lesions=normalised == NORMALISED[0])
        for trained_on in TRAINED_ON:
            for seed in config.seeds:
                name = f"{trained_on} {normalised} {seed}".replace(" ", "_")
                path = config.work / "cells" / f"{name}.json"
                decides = {"steps": config.steps, "resamples": config.resamples}
                found = files.read_json(path, {"rows": list}) if path.is_file() else None
                if found is None or found["decides"] != decides:
                    started = time.perf_counter()
                    rows = rows_of(config, lgg, training[trained_on], test, seed)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    found = {"decides": decides, "rows": rows, "seconds": time.perf_counter() - started}
                    files.write_json(path, found)
                    print(f"{name}: {found['seconds']:.0f} s", flush=True)
                of_cell = {"trained_on": trained_on, "normalised": normalised, "seed": seed}
                done += [{**of_cell, **row, "seconds": found["seconds"]} for row in found["rows"]]
    return done


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per score, training set and normalisation, averaged over the seeds."""
    found = []
    for normalised in NORMALISED:
        for trained_on in TRAINED_ON:
            of = [row for row in rows if (row["trained_on"], row["normalised"]) == (trained_on, normalised)]
            for score in (*SHOWN, BASELINE):
                values = np.array([np.broadcast_to(r["average_precision"], 3) for r in of if r["score"] == score])
                mean, low, high = values.mean(axis=0).tolist()
                spread = float(values[:, 0].std(ddof=1)) if len(values) > 1 else 0.0
                auroc = float(np.mean([np.ravel(row["auroc"])[0] for row in of if row["score"] == score]))
                row = {"trained_on": trained_on, "normalised": normalised, "score": score, "seeds": len(values)}
                found.append(
                    {**row, "average_precision": mean, "low": low, "high": high, "std": spread, "auroc": auroc}
                )
    return found


def markdown(found: list[dict[str, Any]]) -> str:
    """AP by score; one column per training set and normalisation."""
    lines = []
    for score in (*SHOWN, BASELINE):
        line = {"score": style.display(score)}
        for row in found:
            if row["score"] == score:
                words = f"{row['average_precision']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
                line[f"{row['trained_on']}, {row['normalised']}"] = words
        lines.append(line)
    return tables.markdown(lines, list(lines[0]))


def figure(path: Path, found: list[dict[str, Any]]) -> None:
    """AP by training set and normalisation; the spread is that over seeds."""
    lines = style.lines((*SHOWN, BASELINE))
    settings = [(trained_on, normalised) for normalised in NORMALISED for trained_on in TRAINED_ON]
    drawn = []
    for score in (*SHOWN, BASELINE):
        of = {(row["trained_on"], row["normalised"]): row for row in found if row["score"] == score}
        means, spreads = ([of[one][key] for one in settings] for key in ("average_precision", "std"))
        drawn.append(bars.Bars(style.display(score), lines[score].colour, means, spreads))
    ticks = [f"{trained_on}\n{normalised}" for trained_on, normalised in settings]
    bars.figure(path, ticks, drawn, ylabel="average precision of voxels")


def main(config: Config) -> None:
    record.make_folder(config.out, quick=config.quick)
    if config.quick:
        config = dataclasses.replace(config, seeds=(0,), steps=20, resamples=100)
    rows = finished(config)
    found = summary(rows)
    seconds = {(row["trained_on"], row["normalised"], row["seed"]): row["seconds"] for row in rows}
    record.write("domain.json", found, seconds=list(seconds.values()), folder=config.out)
    files.write(config.out / "domain.md", f"{markdown(found)}\n".encode())
    figure(config.out / "domain.png", found)
    print(markdown(found))


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"domain: {error}") from None
