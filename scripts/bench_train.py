"""Benchmark of training steps of both networks, beside PyTorch loops if PyTorch is installed.

    python scripts/bench_train.py                # minutes on two cores
    python scripts/bench_train.py --quick        # under a minute

The brain network (64x64x1, z 256, batch 64) and the FashionMNIST network (784-400-20, batch 128), with Adam and random
images. jaxvae takes `--steps` steps in one call of `fit`, with its data on the device. The best PyTorch loop gathers
batches by index, uses fused Adam and fetches the loss at the end. The usual one has a DataLoader and unfused Adam, and
fetches the loss at every step. Contenders take turns.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import Device, Precision, alternate, complaint, multiply_alike, publish, seconds_of, torch_facts

import jaxvae
from jaxvae.machine import machine

BATCH = {"conv": 64, "dense": 128}
IMAGES = 2048


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
    json: Path | None = None
    """file for the rows"""


def model_of(network: str) -> jaxvae.ConvVAE | jaxvae.DenseVAE:
    return jaxvae.ConvVAE((64, 64, 1)) if network == "conv" else jaxvae.DenseVAE((28, 28, 1))


def jax_contender(network: str, images: np.ndarray, steps: int) -> Callable[[], Any]:
    """`steps` steps of `fit`; each call continues from the state of the one before."""
    model, config = model_of(network), jaxvae.TrainConfig(batch_size=BATCH[network])
    hparams = jaxvae.Hyperparams(learning_rate=1e-4)
    held = [jaxvae.init(model, config, hparams, jax.random.key(0))]
    on_device = jnp.asarray(images)

    def run() -> Any:
        held[0], metrics = jaxvae.fit(model, config, hparams, held[0], on_device, steps=steps)
        return jax.block_until_ready((held[0], metrics))

    return run


def torch_contenders(network: str, images: np.ndarray, steps: int, compiled: bool) -> dict[str, Callable[[], Any]]:
    """The same steps in PyTorch, eager and compiled; convolutions in the usual layout and with channels last."""
    import torch
    import torch_peers

    device = torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")
    model = model_of(network)
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    data = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)

    def contender(channels_last: bool = False, compiled: bool = False) -> Callable[[], Any]:
        peer = (torch_peers.ConvVAE(params) if network == "conv" else torch_peers.DenseVAE(params)).to(device)
        if channels_last:
            for weight in peer.parameters():
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        step = torch_peers.trainer(peer, log_scale=0.0, learning_rate=1e-4, compiled=compiled)

        def run() -> Any:
            order, loss = torch.randperm(len(data), device=device), torch.tensor(0.0)
            for number in range(steps):
                start = number * BATCH[network] % (len(data) - BATCH[network] + 1)
                batch = data[order[start : start + BATCH[network]]]
                loss = step(batch.contiguous(memory_format=torch.channels_last) if channels_last else batch)
            return float(loss)

        return run

    def usual() -> Callable[[], Any]:
        peer = (torch_peers.ConvVAE(params) if network == "conv" else torch_peers.DenseVAE(params)).to(device)
        step = torch_peers.trainer(peer, log_scale=0.0, learning_rate=1e-4, fused=False)
        dataset = torch.utils.data.TensorDataset(data.cpu())
        loader = torch.utils.data.DataLoader(dataset, BATCH[network], shuffle=True, drop_last=True)

        def run() -> Any:
            epochs = itertools.chain.from_iterable(itertools.repeat(loader))
            return [step(batch.to(device)).item() for (batch,) in itertools.islice(epochs, steps)]

        return run

    layouts = (False, True) if network == "conv" else (False,)
    peers = {"PyTorch, as usually written": usual()}
    peers |= {f"PyTorch{', channels last' * last}": contender(channels_last=last) for last in layouts}
    if compiled:
        peers |= {f"PyTorch, compiled{', channels last' * last}": contender(last, compiled=True) for last in layouts}
    return peers


def main(config: Config) -> int:
    wrong = complaint(config.device)
    if not set(config.networks) <= set(BATCH) or not config.networks or min(config.steps, config.rounds) < 1:
        wrong = "--networks must be conv or dense, --steps and --rounds at least 1"
    if wrong:
        print(f"bench_train: {wrong}", file=sys.stderr)
        return 2
    multiply_alike(config.precision)
    peers = torch_facts(config.torch)
    rounds = 3 if config.quick else config.rounds
    rows = []
    for network in config.networks:
        steps = (5 if config.quick else config.steps) * (10 if network == "dense" else 1)
        images = np.random.default_rng(0).random((IMAGES, *model_of(network).image_shape), np.float32)
        contenders = {"jaxvae": jax_contender(network, images, steps)}
        if peers is not None:
            contenders |= torch_contenders(network, images, steps, compiled=not config.quick)
        first = {name: seconds_of(run) for name, run in contenders.items()}
        timings = alternate(contenders, rounds=rounds, warm_up=1)
        for name, timing in timings.items():
            rows.append(
                {
                    "network": network,
                    "contender": name,
                    "median_ms": 1e3 * timing.median / steps,
                    "minimum_ms": 1e3 * timing.minimum / steps,
                    "steps_per_s": steps / timing.median,
                    "times_jaxvae": timing.median / timings["jaxvae"].median,
                    "first_s": first[name],
                }
            )
    heads = {
        "network": "network",
        "contender": "contender",
        "median_ms": "median ms per step",
        "minimum_ms": "minimum ms",
        "steps_per_s": "steps/s",
        "times_jaxvae": "times jaxvae",
        "first_s": "first call s",
    }
    publish(rows, heads, {**machine(), **(peers or {}), "precision": config.precision}, config.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
