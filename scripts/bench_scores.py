"""How fast all maps of a batch can be had, smoothing and Combi included, beside PyTorch where it is installed.

    python scripts/bench_scores.py                        # batches of 1 to 1024: minutes on two cores
    python scripts/bench_scores.py --quick                # batches of 1 and 64: under a minute
    python scripts/bench_scores.py --batch 64 --json scores.json --plot scores.png

The paper's brain network (64x64x1, 16-32-64-256, z 256) with random weights, the same in every contender; their maps
are compared before anything is timed. Contenders take turns. FLOPs are counted from the layers: one encoder forward,
one decoder forward, one decoder pullback and two encoder pullbacks; their share of the ceiling, a large matrix product
timed in the same run, is the column `of the ceiling`.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import alternate, publish, seconds_of, torch_facts

import jaxvae
from jaxvae.machine import machine

MAPS = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi")
LOG_SCALE = -0.5


@dataclass(frozen=True)
class Config:
    """Which batches, and how often."""

    batch: tuple[int, ...] = (1, 8, 64, 256, 1024)
    """batch sizes"""
    rounds: int = 12
    """each contender's turns"""
    quick: bool = False
    """batches of 1 and 64, fewer turns"""
    torch: bool = True
    """time the PyTorch peers too"""
    json: Path | None = None
    """write the rows there"""
    plot: Path | None = None
    """draw images per second against the batch size there"""


def flops_per_image(model: jaxvae.ConvVAE) -> dict[str, float]:
    """Multiplications and additions of the encoder and the decoder, forward."""
    height, width, channels = model.image_shape
    total, fine = 0.0, channels
    for coarse in model.features:
        height, width = height // 2, width // 2
        total += 2 * 16 * height * width * fine * coarse
        fine = coarse
    latent = 2 * height * width * fine * model.latent_size
    return {"encoder": total + 2 * latent, "decoder": total + latent}


def matrix_rate() -> float:
    """FLOP/s of a 2048 x 2048 float32 matrix product, the best of ten."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds)


def jax_contender(model: jaxvae.ConvVAE, params: Any, images: np.ndarray) -> Any:
    """All maps, on the device, as `score_batches` computes them."""
    on_device, log_scale = jnp.asarray(images), jnp.float32(LOG_SCALE)

    def run() -> dict[str, jax.Array]:
        return jax.block_until_ready(jaxvae.score_batch(model, params, on_device, log_scale=log_scale, maps=MAPS).maps)

    return run


def torch_contenders(model: jaxvae.ConvVAE, params: Any, images: np.ndarray) -> dict[str, Any]:
    """The released procedure and the best one, by name; the latter as it is and with channels last."""
    import torch
    import torch_peers

    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    live, frozen, last = (torch_peers.ConvVAE(params) for _ in range(3))
    frozen.requires_grad_(False)
    last.requires_grad_(False)
    for kernel in last.parameters():
        kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)
    return {
        "PyTorch, released procedure": lambda: torch_peers.released_scores(live, x, LOG_SCALE),
        "PyTorch, best": lambda: torch_peers.best_scores(frozen, x, LOG_SCALE),
        "PyTorch, best, channels last": lambda: torch_peers.best_scores(
            last, x.contiguous(memory_format=torch.channels_last), LOG_SCALE
        ),
    }


def check_equal(contenders: dict[str, Any]) -> None:
    """Every contender's maps are those of the first, but for single precision: mostly to 1e-5, and to 1e-4 and more
    where a feature is so close to zero that it falls on either side of LeakyReLU's kink."""
    expected = {name: np.asarray(values) for name, values in contenders["jaxvae"]().items()}
    for contender, run in contenders.items():
        for name, values in run().items():
            got = np.asarray(values).reshape(expected[name].shape)
            error = np.linalg.norm(got - expected[name]) / np.linalg.norm(expected[name])
            if not error < 1e-3:
                raise SystemExit(f"{contender}: {name} differs from jaxvae's by {error:.1e}; nothing was timed")


def main(config: Config) -> int:
    batches, rounds = ((1, 64), 5) if config.quick else (config.batch, config.rounds)
    if min(batches, default=0) < 1 or rounds < 1:
        print("bench_scores: --batch and --rounds take numbers of at least 1", file=sys.stderr)
        return 2
    peers = torch_facts(config.torch)
    model = jaxvae.ConvVAE((64, 64, 1))
    # Three times the usual start: near the prior, the gradient of the KL is mostly rounding error in float32.
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    params = jax.tree.map(lambda kernel: 3 * kernel, params)
    flops = flops_per_image(model)
    needed = 3 * flops["encoder"] + 2 * flops["decoder"]
    rate = matrix_rate()
    rows = []
    for batch in batches:
        images = np.random.default_rng(0).random((batch, 64, 64, 1), np.float32)
        contenders = {"jaxvae": jax_contender(model, params, images)}
        if peers is not None:
            contenders |= torch_contenders(model, params, images)
        first = {name: seconds_of(run) for name, run in contenders.items()}
        check_equal(contenders)
        timings = alternate(contenders, rounds=rounds if batch <= 256 else max(3, rounds // 4))
        for name, timing in timings.items():
            rows.append(
                {
                    "batch": batch,
                    "contender": name,
                    "median_ms": 1e3 * timing.median,
                    "minimum_ms": 1e3 * timing.minimum,
                    "images_per_s": batch / timing.median,
                    "times_jaxvae": timing.median / timings["jaxvae"].median,
                    "of_ceiling": batch * needed / timing.median / rate,
                    "first_s": first[name],
                }
            )
    heads = {
        "batch": "batch",
        "contender": "contender",
        "median_ms": "median ms",
        "minimum_ms": "minimum ms",
        "images_per_s": "images/s",
        "times_jaxvae": "times jaxvae",
        "of_ceiling": "of the ceiling",
        "first_s": "first call s",
    }
    context = {**machine(), **(peers or {}), "matrix_gflops": rate / 1e9, "mflop_per_image": needed / 1e6}
    publish(rows, heads, context, config.json)
    if config.plot is not None:
        plot(config.plot, rows)
    return 0


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Images per second against the batch size, a line a contender."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["contender"] for row in rows):
        line = [(row["batch"], row["images_per_s"]) for row in rows if row["contender"] == name]
        axes.loglog(*zip(*line, strict=True), marker="o", label=name)
    axes.set(xlabel="batch size", ylabel="images per second", title="All maps of the paper's brain network")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
