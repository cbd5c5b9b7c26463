"""Benchmark of populations: training steps per second against the number of runs.

    python scripts/bench_sweep.py                     # both networks, populations of 1 to 64: long on two cores
    python scripts/bench_sweep.py --quick             # the dense network, populations of 1 to 8: under a minute
    python scripts/bench_sweep.py --device gpu --runs 1 16 64 256 --json sweep.json

A model-step is one training step of one run. `side by side` trains all runs of a population at once (vmap), `in turn`
one after the other in one program, `single runs` with one call of `fit` each (four of them at most). Their states are
made before. The PyTorch loop is one run, eager, with fused Adam. The dense network is FashionMNIST's (batch 128), the
convolutional one the brain network (batch 64). `of the ceiling` is the least time of a step of one run, divided by the
time taken: see `ceilings.py`.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ceilings
import jax
import jax.numpy as jnp
import numpy as np
from bench_train import BATCH, IMAGES, model_of, torch_makers
from timing import (
    Device,
    Failure,
    Makers,
    Precision,
    Run,
    Timing,
    complaint,
    environment,
    exit_code,
    multiply_alike,
    publish,
    race,
    save,
    torch_facts,
)

import jaxvae
from jaxvae.population.fit_many import init_many

Way = Literal["jaxvae's choice", "side by side", "in turn", "single runs"]
HEADS = {
    "network": "network",
    "runs": "runs",
    "contender": "contender",
    "ms": "ms per model-step",
    "steps_per_s": "model-steps/s",
    "times_singles": "times single runs",
    "of_ceiling": "of the ceiling",
}


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
    ways: tuple[Way, ...] = ("side by side", "in turn", "single runs")
    """ways to train them; jaxvae's choice depends on the device"""
    torch: bool = True
    """time the PyTorch loop too"""
    json: Path | None = None
    """file for the rows"""


def makers_of(network: str, runs: int, images: np.ndarray, steps: int, ways: tuple[Way, ...]) -> Makers:
    """The same runs in several ways. Each call continues from the states of the one before."""
    model, config = model_of(network), jaxvae.TrainConfig(batch_size=BATCH[network])
    hparams = jaxvae.Hyperparams()

    def population_of(side_by_side: int | None) -> Run:
        population, on_device = jaxvae.grid(seed=range(runs)), jnp.asarray(images)
        held = [init_many(model, config, population)]

        def run() -> Any:
            held[0], metrics = jaxvae.fit_many(
                model, config, population, on_device, steps=steps, states=held[0], side_by_side=side_by_side
            )
            return jax.block_until_ready((held[0], metrics))

        return run

    def singles() -> Run:
        on_device = jnp.asarray(images)
        states = [jaxvae.init(model, config, hparams, jax.random.key(seed)) for seed in range(singly(runs))]

        def run() -> Any:
            for seed, state in enumerate(states):
                states[seed], _ = jaxvae.fit(model, config, hparams, state, on_device, steps=steps)
                jax.block_until_ready(states[seed])

        return run

    side_by_side = {"jaxvae's choice": None, "side by side": runs, "in turn": 1}
    makers = {way: functools.partial(population_of, number) for way, number in side_by_side.items()}
    if runs == 1:
        del makers["in turn"]  # the same as side by side
    return {way: make for way, make in {**makers, "single runs": singles}.items() if way in ways}


def singly(runs: int) -> int:
    """How many single runs are timed: one takes as long as the other."""
    return min(runs, 4)


def measure(network: str, runs: int, config: Config, peers: bool, limits: ceilings.Ceilings) -> list[dict[str, Any]]:
    """One row per contender, for one population."""
    steps = config.steps if network == "dense" else max(1, config.steps // 4)
    images = np.random.default_rng(0).random((IMAGES, *model_of(network).image_shape), np.float32)
    makers = dict(makers_of(network, runs, images, steps, config.ways))
    if peers and runs == 1:
        makers["PyTorch loop"] = torch_makers(network, images, steps, compiled=False)["PyTorch"]
    results = race(makers, rounds=config.rounds, warm_up=0)
    model_steps = {**dict.fromkeys(makers, runs * steps), "single runs": singly(runs) * steps, "PyTorch loop": steps}
    seconds = {
        name: result.median / model_steps[name] for name, result in results.items() if isinstance(result, Timing)
    }
    least = limits.least_seconds(ceilings.work_of_step(model_of(network), BATCH[network]))
    return [
        {"network": network, "runs": runs, "contender": name, "failed": result.reason}
        if isinstance(result, Failure)
        else {
            "network": network,
            "runs": runs,
            "contender": name,
            "ms": 1e3 * seconds[name],
            "steps_per_s": 1 / seconds[name],
            "times_singles": seconds[name] / seconds["single runs"] if "single runs" in seconds else None,
            "of_ceiling": least / seconds[name],
        }
        for name, result in results.items()
    ]


def main(config: Config) -> int:
    wrong = complaint(config.device)
    if not set(config.networks) <= set(BATCH) or not config.networks or min(config.runs, default=0) < 1:
        wrong = "--networks must be conv or dense, --runs at least 1"
    if wrong or min(config.steps, config.rounds) < 1:
        print(f"bench_sweep: {wrong or '--steps, --rounds: must be at least 1'}", file=sys.stderr)
        return 2
    multiply_alike(config.precision)
    peers = torch_facts(config.torch)
    limits = ceilings.measured(config.precision)
    context = environment(**(peers or {}), precision=config.precision)
    rows: list[dict[str, Any]] = []
    for network in ("dense",) if config.quick else config.networks:
        for runs in (1, 4, 8) if config.quick else config.runs:
            rows += measure(network, runs, config, peers is not None, limits)
            save(rows, context, config.json)
    publish(rows, HEADS, context)
    return exit_code(rows)


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Config, description=__doc__)))
