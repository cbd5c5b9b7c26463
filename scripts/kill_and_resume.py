"""Kills training at random moments and shows that it ends, bit for bit, like one that nobody disturbed.

    python scripts/kill_and_resume.py --kills 20        # about three minutes on one core

A process is killed (SIGKILL) after a random time between its start and its end, wherever it is: while it imports,
compiles, restores, trains, or writes a checkpoint. The same command then continues the run. Whenever a run comes to its
end, every leaf of its last checkpoint, the best parameters and all of metrics.jsonl but the seconds are compared with
those of the undisturbed run, and a new one is begun, until there were enough kills.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import tyro
from kills import survive

import jaxvae
from jaxvae.data import phantom

MODEL = ["--features", "4", "8", "--latent-size", "4"]
TRAINING = ["--batch-size", "8", "--epochs", "300", "--patience", "1000", "--checkpoint-seconds", "0.1"]


def main(kills: int = 20, seed: int = 0) -> None:
    """Kill and resume.

    Args:
      kills: how often.
      seed: decides the moments.
    """
    with tempfile.TemporaryDirectory() as name:
        place, images = Path(name), Path(name) / "images"
        images.mkdir()
        for i, image in enumerate(phantom.slices(72, size=32)):
            np.save(images / f"{i:02d}.npy", image)
        survive(
            lambda run: ["train", str(run), "--data", str(images), *MODEL, *TRAINING],
            place,
            kills=kills,
            seed=seed,
            progress=lambda run: f"a checkpoint of step {last_step(run)}",
            compare=compare,
        )


def compare(run: Path, undisturbed: Path) -> str:
    """Exits where the two differ; how much was compared."""
    for path in (run, undisturbed):
        assert last_step(path) == last_step(undisturbed), path
    pairs = list(zip(*(jax.tree.leaves_with_path(arrays(path)) for path in (run, undisturbed)), strict=True))
    for (name, found), (_, expected) in pairs:
        if not np.array_equal(found, expected):
            sys.exit(f"{jax.tree_util.keystr(name)} differs")
    if records(run) != records(undisturbed):
        sys.exit("metrics.jsonl differs")
    return f"{len(pairs)} arrays and all metrics are equal"


def arrays(run: Path) -> tuple[jaxvae.TrainState, object]:
    """The last state of a run, its key as numbers, and its best parameters."""
    opened = jaxvae.load(run)
    config = jaxvae.TrainConfig(**opened.config["train"])
    like = jaxvae.init(opened.model, config, jaxvae.Hyperparams(), jax.random.key(0))
    state = jaxvae.restore(run / "checkpoints" / "last", like)
    return jaxvae.TrainState(state.step, state.params, state.opt_state, jax.random.key_data(state.key)), opened.params


def records(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def last_step(run: Path) -> int | None:
    steps = [int(path.name) for path in (run / "checkpoints" / "last").glob("*") if path.name.isdigit()]
    return max(steps, default=None)


if __name__ == "__main__":
    tyro.cli(main)
