"""Benchmark of scans: time from the .nii.gz of a scan to that of its map, and memory of scoring folders.

    python scripts/bench_volumes.py                  # one volume, then folders of 5 and 50
    python scripts/bench_volumes.py --folders 5      # quicker

Scans are synthetic, skull-stripped, 240x240x155 voxels at 1 mm. The model is the paper's brain network, untrained.
Compilation is not timed. Each folder has its own process, whose highest anonymous memory (RssAnon, Linux only) excludes
the pages of mapped files.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import tyro
from timing import highest_memory

import jaxvae
from jaxvae.data import kinds
from jaxvae.data.volumes import scans, slices
from jaxvae.data.volumes.slices import Slicing
from jaxvae.machine import machine
from jaxvae.runs.config import model_to_config
from jaxvae.runs.run import Run
from jaxvae.scoring import volume_maps
from jaxvae.scoring.writing import MapSettings, Outcome

SHAPE = (240, 240, 155)


@dataclasses.dataclass(frozen=True)
class Config:
    """Time one volume, then measure the memory of folders."""

    folders: tuple[int, ...] = (5, 50)
    """numbers of scans in the folders"""
    maps: tuple[str, ...] = ("combi",)
    """maps to write for each scan"""
    rounds: int = 5
    """how often the single volume is scored; the median is printed"""
    of: Path | None = None
    """internal: score this folder and print the memory"""


def write_scans(folder: Path, count: int) -> None:
    """Write ellipsoids of tissue with smooth structure and noise, int16, different in every scan."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")).astype(np.float32)
    brain = np.square(grid / np.reshape([0.6, 0.72, 0.75], (3, 1, 1, 1))).sum(axis=0) < 1
    structure = 300 + 60 * np.cos(9 * grid[0]) * np.cos(7 * grid[1]) * np.cos(8 * grid[2])
    folder.mkdir()
    for i in range(count):
        noise = np.random.default_rng(i).normal(0, 15, SHAPE).astype(np.float32)
        voxels = np.where(brain, structure + noise, 0).astype(np.int16)
        nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])).to_filename(folder / f"scan_{i:03d}.nii.gz")


def untrained() -> Run:
    """The paper's network as a run on volumes, untrained."""
    model = jaxvae.ConvVAE((64, 64, 1))
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))["params"]
    config = {
        "data": kinds.to_config(kinds.Source("cache")),
        "model": model_to_config(model),
        "hparams": {"learning_rate": 1e-4, "beta": 1.0, "log_scale": 0.0},
        "volumes": {"slicing": slices.to_config(Slicing()), "hash": ""},
    }
    return Run(model, params, 0, config, Path())


def score(run: Run, folder: Path, out: Path, maps: tuple[str, ...]) -> Outcome:
    """Score every scan of a folder, from file to file."""
    return volume_maps.write_volumes(run, scans.unlabelled(folder)[0], out, MapSettings(maps))


def memory(folder: Path, maps: tuple[str, ...]) -> None:
    """Score a folder and print the highest memory."""
    run = untrained()
    with tempfile.TemporaryDirectory() as out, highest_memory() as peak:
        started = time.perf_counter()
        count = len(score(run, folder, Path(out), maps).records)
        seconds = time.perf_counter() - started
    print(f"{count} scans: peak RssAnon {peak[0] / 1e6:.0f} MB, {seconds / count:.2f} s per scan, compilation included")


def main(config: Config) -> None:
    if config.of is not None:
        memory(config.of, config.maps)
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    run = untrained()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_scans(place / "one", 1)
        score(run, place / "one", place / "compiled", config.maps)
        totals, stages = [], []
        for i in range(config.rounds):
            started = time.perf_counter()
            outcome = score(run, place / "one", place / f"out{i}", config.maps)
            totals.append(time.perf_counter() - started)
            stages.append(volume_maps.stage_seconds(outcome))
        middle = int(np.argsort(totals)[len(totals) // 2])
        parts = ", ".join(f"{stages[middle][stage]:.2f} s to {stage}" for stage in stages[middle])
        print(f"one scan of {'x'.join(map(str, SHAPE))}, {' '.join(config.maps)}: {totals[middle]:.2f} s; {parts}")
        for count in config.folders:
            write_scans(place / f"folder{count}", count)
            command = [sys.executable, __file__, "--of", str(place / f"folder{count}"), "--maps", *config.maps]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
