"""Benchmark of populations: training steps per second against the number of runs.

    python scripts/bench_sweep.py                     # both networks, populations of 1 to 64: long on two cores
    python scripts/bench_sweep.py --quick             # the dense network, populations of 1 to 8: under a minute
    python scripts/bench_sweep.py --device gpu --runs 1 16 64 256 --json sweep.json

A model-step is one training step of one run. `side by side` trains all runs of a population at once (vmap), `in turn`
one after the other in one program, `single runs` with one call of `fit` each. The PyTorch loop is one run, eager, with
fused Adam. The dense network is FashionMNIST's (batch 128), the convolutional one the brain network (batch 64).
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from bench_train import BATCH, IMAGES, model_of, torch_contenders
from timing import Contenders, Device, Precision, alternate, complaint, multiply_alike, publish, torch_facts

import jaxvae
from jaxvae.machine import machine


@dataclass(frozen=True)
class Config:
    """Networks, sizes of populations and output."""

    networks: tuple[str, ...] = ("dense", "conv")
    """dense, conv or both"""
    runs: tuple[int, ...] = (1, 4, 16, 64)
    """sizes of the population"""
    steps: int = 40
    """steps per run of the dense network; the convolutional one takes a quarter"""
    rounds: int = 3
    """turns of each contender"""
    quick: bool = False
    """the dense network and small populations"""
    device: Device = "default"
    """device; default is JAX's choice"""
    precision: Precision = "float32"
    """of products and convolutions on an accelerator, in JAX and PyTorch"""
    torch: bool = True
    """time the PyTorch loop too"""
    json: Path | None = None
    """file for the rows"""


def contenders_of(network: str, runs: int, images: np.ndarray, steps: int) -> Contenders:
    """The same runs in three ways."""
    model, config = model_of(network), jaxvae.TrainConfig(batch_size=BATCH[network])
    population, on_device = jaxvae.grid(seed=range(runs)), jnp.asarray(images)

    def population_of(side_by_side: int) -> Callable[[], Any]:
        return lambda: jax.block_until_ready(
            jaxvae.fit_many(model, config, population, on_device, steps=steps, side_by_side=side_by_side)
        )

    def singly() -> None:
        for seed in range(runs):
            state = jaxvae.init(model, config, jaxvae.Hyperparams(), jax.random.key(seed))
            jax.block_until_ready(jaxvae.fit(model, config, jaxvae.Hyperparams(), state, on_device, steps=steps))

    return {"side by side": population_of(runs), "in turn": population_of(1), "single runs": singly}


def main(config: Config) -> int:
    wrong = complaint(config.device)
    if not set(config.networks) <= set(BATCH) or not config.networks or min(config.runs, default=0) < 1:
        wrong = "--networks must be conv or dense, --runs at least 1"
    if wrong or min(config.steps, config.rounds) < 1:
        print(f"bench_sweep: {wrong or '--steps, --rounds: must be at least 1'}", file=sys.stderr)
        return 2
    multiply_alike(config.precision)
    peers = torch_facts(config.torch)
    rows = []
    for network in ("dense",) if config.quick else config.networks:
        steps = config.steps if network == "dense" else max(1, config.steps // 4)
        images = np.random.default_rng(0).random((IMAGES, *model_of(network).image_shape), np.float32)
        for runs in (1, 4, 8) if config.quick else config.runs:
            contenders = contenders_of(network, runs, images, steps)
            model_steps = dict.fromkeys(contenders, runs * steps)
            if peers is not None and runs == 1:
                contenders["PyTorch loop"] = torch_contenders(network, images, steps, compiled=False)["PyTorch"]
                model_steps["PyTorch loop"] = steps
            timings = alternate(contenders, rounds=config.rounds, warm_up=1)
            singles = timings["single runs"].median
            rows += [
                {
                    "network": network,
                    "runs": runs,
                    "contender": name,
                    "ms": 1e3 * timing.median / model_steps[name],
                    "steps_per_s": model_steps[name] / timing.median,
                    "times_singles": timing.median / singles,
                }
                for name, timing in timings.items()
            ]
    heads = {
        "network": "network",
        "runs": "runs",
        "contender": "contender",
        "ms": "ms per model-step",
        "steps_per_s": "model-steps/s",
        "times_singles": "times single runs",
    }
    publish(rows, heads, {**machine(), **(peers or {}), "precision": config.precision}, config.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
