"""Which lesions of the phantom are found: README's figure and a table by kind of lesion.

    bash scripts/demo.sh               # trains and evaluates `demo` in about four minutes on two cores
    python -m experiments.phantom      # seconds

Scores the test images of the demo's run with ELBO-Grad. Each image's Dice is taken at the threshold that maximizes the
Dice of all test pixels, as in the demo's report. Writes results/phantom.png, the lesions of the highest and the lowest
Dice, and results/phantom.md. All maps of the figure share one scale, from 0 to the 99.5th percentile of their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import jaxvae
from experiments import record
from jaxvae import files
from jaxvae.data import phantom
from jaxvae.data.dataset import Dataset
from jaxvae.report import panels, tables


@dataclass(frozen=True)
class Config:
    """Score, tabulate, draw."""

    run: Path = Path("demo")
    """the run of `bash scripts/demo.sh`"""


def dice_of_images(maps: np.ndarray, masks: np.ndarray, threshold: float) -> np.ndarray:
    """Dice of each image at a threshold, [N]; NaN for images without a lesion."""
    marked = maps >= threshold
    overlap, sizes, lesions = (part.sum(axis=(1, 2, 3)) for part in (marked & masks, marked, masks))
    return np.where(lesions > 0, 2 * overlap / np.maximum(sizes + lesions, 1), np.nan)


def by_kind(test: Dataset, maps: np.ndarray, dice: np.ndarray) -> list[dict[str, Any]]:
    """One row per kind of lesion: the number of images, their Dice, and the AUROC of their pixels."""
    assert test.masks is not None
    kinds = np.array(test.kinds)
    rows = []
    for kind in sorted(set(kinds[test.labels])):
        chosen = kinds == kind
        quartiles = np.percentile(dice[chosen], (25, 50, 75))
        row = {"lesion": kind, "images": int(chosen.sum()), "AUROC": jaxvae.auroc(maps[chosen], test.masks[chosen])}
        rows.append({**row, **dict(zip(("Dice, lower quartile", "median", "upper quartile"), quartiles, strict=True))})
    return rows


def draw(path: Path, test: Dataset, reconstructions: np.ndarray, maps: np.ndarray, dice: np.ndarray) -> None:
    """The lesion of highest and the lesion of lowest Dice: image, lesion, reconstruction and map."""
    from matplotlib.figure import Figure

    assert test.masks is not None
    figure = Figure(figsize=(8.4, 4.25), layout="constrained")
    high = panels.top_of_scale(maps)
    words = {"Found": int(np.nanargmax(dice)), "Missed": int(np.nanargmin(dice))}
    for row, (word, which) in zip(figure.subplots(2, 4), words.items(), strict=True):
        image, mask = test.images[which, ..., 0], test.masks[which, ..., 0]
        grey = {"cmap": "gray", "vmin": image.min(), "vmax": image.max()}
        row[0].imshow(image, **grey)
        row[1].imshow(image, **grey)
        for edge in panels.outline(mask):
            row[1].plot(*edge.T, color=panels.OUTLINE, linewidth=2)
        row[2].imshow(reconstructions[which, ..., 0], **grey)
        row[3].imshow(maps[which, ..., 0], cmap="inferno", vmin=0, vmax=high)
        row[0].set_ylabel(f"{word}\n{test.kinds[which]}, Dice {dice[which]:.2f}", fontsize=13)
        if word == "Found":
            for axes, title in zip(row, ("Image", "Lesion", "Reconstruction", "ELBO-Grad"), strict=True):
                axes.set_title(title, fontsize=15)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=200)


def main(config: Config) -> None:
    run = jaxvae.load(config.run)
    test = phantom.load(size=run.model.image_shape[0], seed=run.config["data"]["split_seed"]).test
    assert test.masks is not None
    scores = run.score(test.images, ("elbo_grad",), reconstructions=True)
    maps = scores.maps["elbo_grad"]
    threshold = jaxvae.best_dice(maps, test.masks)[1]
    dice = dice_of_images(maps, test.masks, threshold)
    rows = by_kind(test, maps, dice)
    table = tables.markdown(rows, list(rows[0]), best={})
    print(table)
    files.write(record.RESULTS / "phantom.md", f"{table}\n".encode())
    draw(record.RESULTS / "phantom.png", test, scores.reconstructions, maps, dice)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
