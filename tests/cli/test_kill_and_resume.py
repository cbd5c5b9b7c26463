"""Commands that are killed at random moments and started again give the results of a command that was not disturbed.

A process gets SIGKILL at any time between its start and its end: while it imports, compiles, restores, trains, or
writes a checkpoint.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvae
from folders import write_benchmark

KILLS = 4
TRAIN = "train --features 4 8 --latent-size 4 --batch-size 4 --epochs 300 --patience 999 --checkpoint-seconds 0.1"
SWEEP = "sweep --features 4 8 --batch-size 4 --epochs 20 --seed 0 1 --beta 0.5 1 --latent-size 2 4 --runs-per-program 2"


def ends_in_time(command: str, place: Path, folder: str, timeout: float | None) -> bool:
    """Start a command. Returns False if it had to be killed after `timeout` seconds."""
    name, *flags = command.split()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jaxvae", name, folder, "--data", "data", *flags],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:  # `run` has killed it
        return False
    assert done.returncode == 0, done.stderr
    return True


def undisturbed_and_killed(command: str, place: Path) -> tuple[Path, Path]:
    """The folder of a command that ran undisturbed, and of one that was killed up to `KILLS` times."""
    write_benchmark(place / "data", size=16)
    moments, started = random.Random(0), time.perf_counter()
    ends_in_time(command, place, "undisturbed", None)
    seconds = time.perf_counter() - started
    for _ in range(KILLS):
        ends_in_time(command, place, "killed", moments.uniform(0, seconds))
    ends_in_time(command, place, "killed", None)
    return place / "undisturbed", place / "killed"


def arrays(run_dir: Path) -> list[np.ndarray]:
    """All arrays of the last state of a run, and of its best parameters."""
    run = jaxvae.load(run_dir)
    config = jaxvae.TrainConfig(**run.config["train"])
    like = jaxvae.init(run.model, config, jaxvae.Hyperparams(), jax.random.key(0))
    state = jaxvae.restore(run_dir / "checkpoints" / "last", like)
    leaves = jax.tree.leaves((state.step, state.params, state.opt_state, jax.random.key_data(state.key), run.params))
    return list(map(np.asarray, leaves))


def records(run_dir: Path) -> list[dict[str, float]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.mark.slow
def test_killed_training_ends_with_the_same_arrays(tmp_path: Path) -> None:
    undisturbed, killed = undisturbed_and_killed(TRAIN, tmp_path)
    for expected, found in zip(arrays(undisturbed), arrays(killed), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert records(killed) == records(undisturbed)


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_same_table(tmp_path: Path) -> None:
    undisturbed, killed = undisturbed_and_killed(SWEEP, tmp_path)
    for name in ("plan.json", "table.jsonl", "table.csv"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()
