"""Benchmark of training steps of both networks, beside PyTorch loops if PyTorch is installed.

    python scripts/bench_train.py                # minutes on two cores
    python scripts/bench_train.py --quick        # under a minute

The brain network (64x64x1, z 256, batch 64) and the FashionMNIST network (784-400-20, batch 128), with Adam and random
images. jaxvae takes `--steps` steps in one call of `fit`, with its data on the device. The best PyTorch loop gathers
batches by index, uses fused Adam and fetches the loss at the end; on a GPU, a step is also timed as one CUDA graph. The
usual loop has a DataLoader and unfused Adam, and fetches the loss at every step. Contenders take turns. A contender
that fails is a row with its reason. `of the ceiling` is the least time, divided by the time taken: see `ceilings.py`.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import functools
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ceilings
import jax
import jax.numpy as jnp
import numpy as np
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

BATCH = {"conv": 64, "dense": 128}
IMAGES = 2048
HEADS = {
    "network": "network",
    "contender": "contender",
    "median_ms": "median ms per step",
    "minimum_ms": "minimum ms",
    "steps_per_s": "steps/s",
    "times_jaxvae": "times jaxvae",
    "of_ceiling": "of the ceiling",
    "first_s": "first call s",
}


@dataclass(frozen=True)
class Config:
    """Networks, steps and output."""

    networks: tuple[str, ...] = ("conv", "dense")
    """conv, dense or both"""
    steps: int = 20
    """steps per call; the dense network takes ten times as many"""
    rounds: int = 9
    """turns of each contender"""
    quick: bool = False
    """fewer steps and turns, no torch.compile"""
    device: Device = "default"
    """device; default is JAX's choice"""
    precision: Precision = "float32"
    """of products and convolutions on an accelerator, in JAX and PyTorch"""
    torch: bool = True
    """time the PyTorch peers too"""
    compiled: bool = True
    """with torch.compile"""
    fastest: bool = False
    """of the PyTorch peers, only the usual one and the fastest layout, on a GPU as CUDA graphs"""
    json: Path | None = None
    """file for the rows"""


def model_of(network: str) -> jaxvae.ConvVAE | jaxvae.DenseVAE:
    return jaxvae.ConvVAE((64, 64, 1)) if network == "conv" else jaxvae.DenseVAE((28, 28, 1))


def jax_contender(network: str, images: np.ndarray, steps: int) -> Run:
    """`steps` steps of `fit`; each call continues from the state of the one before."""
    model, config = model_of(network), jaxvae.TrainConfig(batch_size=BATCH[network])
    hparams = jaxvae.Hyperparams(learning_rate=1e-4)
    held = [jaxvae.init(model, config, hparams, jax.random.key(0))]
    on_device = jnp.asarray(images)

    def run() -> Any:
        held[0], metrics = jaxvae.fit(model, config, hparams, held[0], on_device, steps=steps)
        return jax.block_until_ready((held[0], metrics))

    return run


def torch_makers(network: str, images: np.ndarray, steps: int, *, compiled: bool, fastest: bool = False) -> Makers:
    """The same steps in PyTorch, by name: eager and compiled, in both layouts, and each step as one CUDA graph."""
    import torch
    import torch_peers

    on_gpu = jax.default_backend() == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    params = jaxvae.init(model_of(network), jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    size = BATCH[network]
    if compiled:
        torch.compiler.reset()

    def peer(last: bool, compiled: bool, graph: bool) -> Any:
        def make() -> Run:
            data, model = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device), new_model()
            layout = torch.channels_last if last else torch.contiguous_format
            model = torch_peers.channels_last(model) if last else model
            train = torch_peers.trainer(model, log_scale=0.0, learning_rate=1e-4, compiled=compiled)
            rows = torch.arange(size, device=device)  # the images that the graph takes

            def step() -> Any:
                return train(data[rows].contiguous(memory_format=layout))

            take = torch_peers.as_graph(step) if graph else step

            def run() -> float:
                order, loss = torch.randperm(len(data), device=device), torch.tensor(0.0)
                for number in range(steps):
                    start = number * size % (len(data) - size + 1)
                    rows.copy_(order[start : start + size])
                    loss = take()
                return float(loss)

            return run

        return make

    def new_model() -> Any:
        return (torch_peers.ConvVAE if network == "conv" else torch_peers.DenseVAE)(params).to(device)

    def usual() -> Run:
        step = torch_peers.trainer(new_model(), log_scale=0.0, learning_rate=1e-4, fused=False)
        dataset = torch.utils.data.TensorDataset(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        loader = torch.utils.data.DataLoader(dataset, size, shuffle=True, drop_last=True)

        def run() -> Any:
            epochs = itertools.chain.from_iterable(itertools.repeat(loader))
            return [step(batch.to(device)).item() for (batch,) in itertools.islice(epochs, steps)]

        return run

    makers: dict[str, Any] = {"PyTorch, as usually written": usual}
    graphs = (False,) if not on_gpu else (True,) if fastest else (False, True)
    # Channels last is the faster layout of the two, and torch.compile takes a minute for each.
    has_layouts = network == "conv"
    layouts = (has_layouts,) if fastest else (False, True)[: 1 + has_layouts]
    for graph, compile_it, last in itertools.product(graphs, (False, True)[: 1 + compiled], layouts):
        name = "PyTorch" + ", compiled" * compile_it + ", channels last" * last + ", CUDA graph" * graph
        makers[name] = peer(last, compile_it, graph)
    return makers


def main(config: Config) -> int:
    wrong = complaint(config.device)
    if not set(config.networks) <= set(BATCH) or not config.networks or min(config.steps, config.rounds) < 1:
        wrong = "--networks must be conv or dense, --steps and --rounds at least 1"
    if wrong:
        print(f"bench_train: {wrong}", file=sys.stderr)
        return 2
    multiply_alike(config.precision)
    peers = torch_facts(config.torch)
    limits = ceilings.measured(config.precision)
    context = environment(**(peers or {}), precision=config.precision)
    rounds = 3 if config.quick else config.rounds
    rows: list[dict[str, Any]] = []
    for network in config.networks:
        steps = (5 if config.quick else config.steps) * (10 if network == "dense" else 1)
        images = np.random.default_rng(0).random((IMAGES, *model_of(network).image_shape), np.float32)
        makers: dict[str, Any] = {"jaxvae": functools.partial(jax_contender, network, images, steps)}
        if peers is not None:
            compiled = config.compiled and not config.quick
            makers |= torch_makers(network, images, steps, compiled=compiled, fastest=config.fastest)
        results = race(makers, rounds=rounds, warm_up=0)
        least, ours = limits.least_seconds(ceilings.work_of_step(model_of(network), BATCH[network])), results["jaxvae"]
        rows += [
            {"network": network, "contender": name, "failed": result.reason}
            if isinstance(result, Failure)
            else {
                "network": network,
                "contender": name,
                "median_ms": 1e3 * result.median / steps,
                "minimum_ms": 1e3 * result.minimum / steps,
                "steps_per_s": steps / result.median,
                "times_jaxvae": result.median / ours.median if isinstance(ours, Timing) else None,
                "of_ceiling": least * steps / result.median,
                "first_s": result.first,
            }
            for name, result in results.items()
        ]
        save(rows, context, config.json)
    publish(rows, HEADS, context)
    return exit_code(rows)


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Config, description=__doc__)))
