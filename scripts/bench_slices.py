"""Benchmark of long streams of slices: time and memory against the number of images.

    python scripts/bench_slices.py                        # 1,000, 10,000 and 100,000 slices: minutes on two cores
    python scripts/bench_slices.py --images 1000 10000    # half a minute

`score_batches` reads uint8 slices of 64x64 pixels from a memory-mapped file, with the paper's brain network and random
weights. Each number of images has its own process. Its highest anonymous memory (RssAnon, Linux only) excludes the
pages of the mapped file. Processes take turns, and compilation is not timed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from timing import highest_memory, publish, seconds_of

import jaxvae
from jaxvae.machine import machine

SIDE = 64


@dataclass(frozen=True)
class Config:
    """Numbers of images, maps and output."""

    images: tuple[int, ...] = (1000, 10_000, 100_000)
    """numbers of images"""
    maps: tuple[str, ...] = ("combi", "elbo_grad")
    """maps to compute"""
    rounds: int = 3
    """turns of each number of images"""
    json: Path | None = None
    """file for the rows"""
    of: Path | None = None
    """internal: score this file of slices and print the row"""


def measure(path: Path, maps: tuple[str, ...]) -> dict[str, Any]:
    """Measure time and memory of scoring all slices of a file."""
    images = np.load(path, mmap_mode="r")
    model = jaxvae.ConvVAE((SIDE, SIDE, 1))
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params

    def score(images: np.ndarray) -> None:
        for _ in jaxvae.score_batches(model, params, images, maps=maps):
            pass

    score(images[:100])  # Compiles the program of a full batch.
    with highest_memory() as peak:
        seconds = seconds_of(lambda: score(images))
    return {"images": len(images), "images_per_s": len(images) / seconds, "peak_mb": peak[0] / 1e6}


def main(config: Config) -> int:
    if config.of is not None:
        print(json.dumps(measure(config.of, config.maps)))
        return 0
    if min(config.images, default=0) < 100 or config.rounds < 1:
        print("bench_slices: --images must be at least 100, --rounds at least 1", file=sys.stderr)
        return 2
    found: dict[int, list[dict[str, Any]]] = {count: [] for count in config.images}
    with tempfile.TemporaryDirectory() as folder:
        for count in config.images:
            pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 1), np.uint8)
            np.save(Path(folder, f"{count}.npy"), pixels)
        for _ in range(config.rounds):
            for count in config.images:
                command = [sys.executable, __file__, "--of", f"{folder}/{count}.npy", "--maps", *config.maps]
                found[count].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    rows = [
        {
            "images": count,
            "images_per_s": statistics.median(row["images_per_s"] for row in turns),
            "lowest": min(row["images_per_s"] for row in turns),
            "highest": max(row["images_per_s"] for row in turns),
            "peak_mb": max(row["peak_mb"] for row in turns),
        }
        for count, turns in found.items()
    ]
    heads = {"images": "images", "images_per_s": "images/s, median", "lowest": "lowest", "highest": "highest"}
    publish(rows, {**heads, "peak_mb": "highest RssAnon, MB"}, {**machine(), "maps": config.maps}, config.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
