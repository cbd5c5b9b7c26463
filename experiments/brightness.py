"""Average precision of each score against the brightness of the lesion.

    python -m experiments.brightness                       # hours on two cores; the same command continues
    python -m experiments.brightness --quick --out quick   # a trial of minutes

Meissen et al. (2021, On the pitfalls of using the residual error as anomaly score) insert lesions of one brightness,
from 0 to 1, into healthy brain slices. With imperfect reconstructions, the residual finds bright and dark lesions only.
This repeats the experiment for every score of the library.

A VAE is trained on tumour-free LGG FLAIR slices of 17 patients, with intensities from 0 to 1: the 0.5th and the 99.5th
percentile of the voxels inside the head in a patient's tumour-free slices. Its log_scale is -2. One soft-edged disk is
inserted into each of `--lesions` healthy slices of other patients. The places, the sizes and the slices are the same
for every brightness. AP is over the pixels of all heads. A second VAE is trained on slices with equalised histograms: a
value is its rank in the slice's head. A lesion is inserted first and the slice is equalised then, as it would be with a
real lesion, so the brightness is the one before that.

Finished parts are in `--work`. Writes results/brightness.json, .md and .png.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

import jaxvae
from experiments import brain_mri, brain_scans, record
from jaxvae import files
from jaxvae.data.volumes import cache
from jaxvae.errors import InputError
from jaxvae.evaluation.image_metrics import baseline_maps
from jaxvae.metrics import equalised_brightness
from jaxvae.report import style, tables
from jaxvae.runs.fitting import fit_states

SIZE = 64
LOG_SCALE = -2.0  # of the decoder: about the error of a reconstruction, for intensities in 0..1
RADII = 3.0, 8.0  # pixels, the smallest and the largest
SCORES = (
    *brain_mri.MAPS,
    *("rec_probability", "mahalanobis", "restoration"),
    *("atlas", "pca", "knn_patches", "tissues", "asymmetry"),
)
COLUMNS = ("plain", "equalised")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train, insert, score, draw."""

    data: Path = Path(os.environ.get("JAXVAE_DATA", "")) / "data"
    """the folder of the open data sets"""
    work: Path = Path("runs/brightness")
    """folder of the prepared volumes and the finished parts"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of the training"""
    lesions: int = 100
    brightness: tuple[float, ...] = tuple(round(0.1 * number, 1) for number in range(11))
    scores: tuple[str, ...] = SCORES
    """beside the two baselines"""
    steps: int = 1500
    out: Path = record.RESULTS
    """the folder of the results"""
    quick: bool = False
    """a trial: 30 steps, one seed, 10 lesions of three brightnesses, without restoration; needs another `--out`"""


class Healthy(NamedTuple):
    """Slices in 0..1 and their heads, [N, S, S, 1] each."""

    images: np.ndarray
    heads: np.ndarray


@functools.lru_cache(maxsize=1)
def healthy_slices(config: Config) -> tuple[Healthy, Healthy]:
    """Tumour-free slices to train on, and those of other patients."""
    prepared = brain_scans.prepare("flair", brain_mri.Config(data=config.data, work=config.work), SIZE)
    opened, everything = cache.open_cache(prepared.train), cache.load(prepared.train, validation=0.15, test=0.3)
    assert opened.masks is not None
    scaled, place = np.empty_like(opened.images), {}
    for volume in opened.volumes:
        part = slice(volume["start"], volume["stop"])
        healthy = ~np.any(opened.masks[part], axis=(1, 2, 3))
        low, high = np.percentile(opened.images[part][healthy][opened.brains[part][healthy]], (0.5, 99.5))
        scaled[part] = np.clip((opened.images[part] - low) / (high - low), 0, 1) * opened.brains[part]
        place |= dict(zip(cache.slice_names(volume), range(volume["start"], volume["stop"]), strict=True))

    def slices(names: list[str]) -> Healthy:
        numbers = [place[name] for name in names]
        return Healthy(scaled[numbers], opened.brains[numbers])

    test = everything.test
    untouched = [name for name, label in zip(test.names, test.labels, strict=True) if not label]
    return slices(list(everything.train.names)), slices(untouched)


def insert(healthy: Healthy, count: int, seed: int = 0) -> tuple[Healthy, np.ndarray]:
    """Slices with room for a disk, and the disks: how much of each pixel is replaced, [count, S, S, 1] in 0..1."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    depth = [np.asarray(ndimage.distance_transform_edt(np.pad(head[..., 0], 1)))[1:-1, 1:-1] for head in healthy.heads]
    roomy = np.flatnonzero([one.max() > RADII[1] for one in depth])
    chosen = rng.choice(roomy, count, replace=count > len(roomy))
    rows, columns = np.indices(healthy.images.shape[1:3])
    disks = []
    for number in chosen:
        radius = rng.uniform(*RADII)
        places = np.argwhere(depth[number] > radius)
        row, column = places[rng.integers(len(places))]
        disks.append(np.clip(radius + 0.5 - np.hypot(rows - row, columns - column), 0, 1))
    return Healthy(healthy.images[chosen], healthy.heads[chosen]), np.array(disks, np.float32)[..., None]


def prepared(column: str, images: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """The images, or their ranks in the head."""
    return images if column == "plain" else equalised_brightness(images, heads)


def trained(config: Config, images: np.ndarray, seed: int) -> tuple[jaxvae.ConvVAE, Any]:
    """A VAE of the paper's network."""
    model = jaxvae.ConvVAE((SIZE, SIZE, 1), latent_size=256)
    training, hparams = jaxvae.TrainConfig(batch_size=32), jaxvae.Hyperparams(3e-4, log_scale=LOG_SCALE)
    state = jaxvae.init(model, training, hparams, jax.random.key(seed))
    state, _ = jaxvae.fit(model, training, hparams, state, jax.device_put(images), steps=config.steps)
    return model, state.params


def compute(config: Config, column: str, seed: int) -> list[dict[str, Any]]:
    """One row per brightness and score."""
    own, others = healthy_slices(config)
    images = prepared(column, own.images, own.heads)
    model, params = trained(config, images, seed)
    states = fit_states(model, params, images, config.scores, log_scale=LOG_SCALE, likelihood=jaxvae.gaussian_nll)
    test, disks = insert(others, config.lesions)
    rows = []
    for brightness in config.brightness:
        changed = prepared(column, (test.images * (1 - disks) + brightness * disks) * test.heads, test.heads)
        found = jaxvae.score_images(model, params, changed, log_scale=LOG_SCALE, maps=config.scores, states=states)
        maps = {**baseline_maps(changed), **found.maps}
        for name, values in maps.items():
            precision = jaxvae.average_precision(values[test.heads], (disks > 0.5)[test.heads])
            row = {"column": column, "seed": seed, "brightness": brightness, "score": name}
            rows.append({**row, "average_precision": precision})
    return rows


def finished(config: Config) -> tuple[list[dict[str, Any]], list[float]]:
    """The rows of all parts, from their files or computed now, and the seconds of each."""
    names = ("steps", "lesions", "brightness", "scores")
    decides = {name: getattr(config, name) for name in names}
    parts = [
        record.part(config.work / f"{column}-{seed}.json", decides, functools.partial(compute, config, column, seed))
        for column in COLUMNS
        for seed in config.seeds
    ]
    return [row for part in parts for row in part["rows"]], [part["seconds"] for part in parts]


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of the AP over seeds."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        groups.setdefault((row["column"], row["score"], row["brightness"]), []).append(row["average_precision"])
    return [
        dict(zip(("column", "score", "brightness"), key, strict=True))
        | {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}
        for key, values in groups.items()
    ]


def markdown(summary: list[dict[str, Any]]) -> str:
    """One table per column: AP of every score at every brightness, and the lowest."""
    parts = []
    for column in COLUMNS:
        lines: dict[str, dict[str, Any]] = {}
        for row in (row for row in summary if row["column"] == column):
            line = lines.setdefault(row["score"], {"score": style.display(row["score"])})
            line[f"{row['brightness']:g}"] = row["mean"]
        for line in lines.values():
            line["lowest"] = min(value for value in line.values() if isinstance(value, float))
        found = sorted(lines.values(), key=lambda line: -line["lowest"])
        parts.append(f"AP by lesion brightness, {column} intensities:\n\n{tables.markdown(found, list(found[0]))}")
    return "\n\n".join(parts)


def figure(path: Path, summary: list[dict[str, Any]]) -> None:
    """One panel for plain and one for equalised intensities: AP against brightness, one line per score."""
    names = list(dict.fromkeys(row["score"] for row in summary))
    lines, sheet = style.lines(names), style.sheet(style.WIDTH, 720)
    panels = [style.axes(sheet, 90 + 610 * number, 60, 530, 570) for number in range(len(COLUMNS))]
    for panel, column in zip(panels, COLUMNS, strict=True):
        for name in names:
            found = [row for row in summary if (row["column"], row["score"]) == (column, name)]
            at, means = [row["brightness"] for row in found], [row["mean"] for row in found]
            of_model = {"linewidth": style.points(3.5 if name in brain_mri.MAPS else 2.2)}
            look = {"color": lines[name].colour, "linestyle": lines[name].dashes, **of_model}
            panel.plot(at, means, label=style.display(name), **look)
        style.plain_axes(
            panel, xlabel="brightness of the lesion" + (" before equalisation" if column == "equalised" else "")
        )
        panel.set(xlim=(0, 1), ylim=(0, 1))
        panel.set_title(f"{column} intensities", loc="left", fontsize=style.points(style.TEXT))
    panels[0].set_ylabel("average precision", fontsize=style.points(style.TEXT), color=style.INK)
    handles, labels = panels[0].get_legend_handles_labels()
    sheet.legend(handles, labels, frameon=False, loc="upper left", bbox_to_anchor=(0.83, 0.93), fontsize=7)
    style.save(sheet, path)


def main(config: Config) -> None:
    record.make_folder(config.out, quick=config.quick)
    if config.quick:
        few = {"steps": 30, "seeds": (0,), "lesions": 10, "brightness": (0.0, 0.5, 1.0), "work": config.work / "quick"}
        # Restoration takes 500 passes.
        few["scores"] = tuple(name for name in config.scores if name != "restoration")
        config = dataclasses.replace(config, **few)
    rows, seconds = finished(config)
    summary = summarize(rows)
    text = markdown(summary)
    record.write("brightness.json", summary, seconds=seconds, folder=config.out)
    files.write(config.out / "brightness.md", f"{text}\n".encode())
    figure(config.out / "brightness.png", summary)
    print(text)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except InputError as error:
        raise SystemExit(f"brightness: {error}") from None
