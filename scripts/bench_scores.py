"""Benchmark of all maps of a batch, with smoothing and Combi, beside PyTorch if it is installed.

    python scripts/bench_scores.py                        # batches of 1 to 1024: minutes on two cores
    python scripts/bench_scores.py --quick                # batches of 1 and 64, no torch.compile: seconds
    python scripts/bench_scores.py --batch 64 --json scores.json --plot scores.png
    python scripts/bench_scores.py --device gpu --batch 1 64 1024 16384 --precision tensorfloat32

The paper's brain network (64x64x1, 16-32-64-256, z 256), with the same random weights in every contender. Before
anything is timed, the maps are compared with jaxvae's in full float32; `error` is the largest relative difference of a
map. Contenders take turns.

Work is counted from the layers: one forward pass of encoder and decoder, one pullback of the decoder and two of the
encoder. Two ceilings, a large matrix product and a large copy, are timed in the same run. `of the ceiling` is the time
that the lower ceiling allows, divided by the time taken.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import (
    Contenders,
    Device,
    alternate,
    complaint,
    copy_rate,
    matrix_rate,
    multiply_alike,
    publish,
    seconds_of,
    torch_facts,
)

import jaxvae
from jaxvae.machine import machine

MAPS = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi")
LOG_SCALE = -0.5
# The largest relative difference from full float32 at which a contender is timed. Single precision reaches 1e-5, and
# 1e-4 or more where a feature is so close to zero that its sign, and LeakyReLU's slope, differ.
TOLERANCE = {"float32": 1e-3, "tensorfloat32": 1e-1, "bfloat16": 5e-1}


@dataclass(frozen=True)
class Config:
    """Batch sizes, contenders and output."""

    batch: tuple[int, ...] = (1, 8, 64, 256, 1024)
    """batch sizes"""
    rounds: int = 12
    """turns of each contender"""
    quick: bool = False
    """batches of 1 and 64, fewer turns, no torch.compile"""
    device: Device = "default"
    """device; default is JAX's choice"""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """of products and convolutions (tensorfloat32: accelerators only), or of all features (bfloat16)"""
    torch: bool = True
    """time the PyTorch peers too"""
    json: Path | None = None
    """file for the rows"""
    plot: Path | None = None
    """file for a plot of images per second against batch size"""


def work_per_batch(model: jaxvae.ConvVAE, batch: int) -> tuple[float, float]:
    """(FLOP, bytes) of all maps: by definition (Winograd's form needs fewer), and the least that memory must move."""
    height, width, fine = model.image_shape
    layers = []  # per level: FLOP per image, kernel elements, elements in and out per image
    for coarse in model.features:
        height, width = height // 2, width // 2
        kernel, positions = 16 * fine * coarse, height * width
        layers.append((2 * positions * kernel, kernel, positions * (4 * fine + coarse)))
        fine = coarse
    pixels = height * width * fine
    encoder = [
        *layers,
        (4 * pixels * model.latent_size, 2 * pixels * model.latent_size, pixels + 2 * model.latent_size),
    ]
    decoder = [*layers, (2 * pixels * model.latent_size, pixels * model.latent_size, pixels + model.latent_size)]
    flops = sum(count * flop for part, count in ((encoder, 3), (decoder, 2)) for flop, _, _ in part)
    kernels = sum(2 * kernel for part in (encoder, decoder) for _, kernel, _ in part)
    features = sum(count * moved for part, count in ((encoder, 3), (decoder, 2)) for _, _, moved in part)
    return float(batch * flops), 4.0 * (kernels + batch * features)


def jax_contender(model: jaxvae.ConvVAE, params: Any, images: np.ndarray, precision: str) -> Any:
    """All maps on the device, as in `score_batches`."""
    on_device, log_scale = jnp.asarray(images), jnp.float32(LOG_SCALE)

    def run() -> dict[str, jax.Array]:
        with jax.default_matmul_precision("float32" if precision == "bfloat16" else precision):
            scores = jaxvae.score_batch(model, params, on_device, log_scale=log_scale, maps=MAPS)
        return jax.block_until_ready(scores.maps)

    return run


def torch_contenders(params: Any, images: np.ndarray, precision: str, compiled: bool) -> Contenders:
    """The released procedure and the fastest ones we know, by name."""
    import torch
    import torch_peers

    on_gpu = jax.default_backend() == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device, dtype)
    last_x = x.contiguous(memory_format=torch.channels_last)
    live, frozen, last = (torch_peers.ConvVAE(params).to(device, dtype) for _ in range(3))
    for model in (frozen, last):
        model.requires_grad_(False)
    for kernel in last.parameters():
        kernel.data = kernel.data.contiguous(memory_format=torch.channels_last)

    def finished(run: Any) -> Any:
        def waited() -> Any:
            maps = run()
            if on_gpu:
                torch.cuda.synchronize()
            return maps

        return waited

    def stacked(function: Any, model: Any, x: Any) -> Any:
        def run() -> Any:
            with torch.inference_mode():
                return function(model, x, LOG_SCALE)

        return run

    contenders = {
        "PyTorch, released procedure": lambda: torch_peers.released_scores(live, x, LOG_SCALE),
        "PyTorch, two pullbacks": lambda: torch_peers.two_pullbacks(frozen, x, LOG_SCALE),
        "PyTorch, two pullbacks, channels last": lambda: torch_peers.two_pullbacks(last, last_x, LOG_SCALE),
        "PyTorch, stacked pullbacks": stacked(torch_peers.stacked_pullbacks, frozen, x),
    }
    if compiled:
        torch.compiler.reset()  # Each batch size compiles again, and torch limits compilations per function.
        function = torch.compile(torch_peers.stacked_pullbacks, dynamic=False)
        contenders["PyTorch, stacked, compiled"] = stacked(function, frozen, x)
        contenders["PyTorch, stacked, compiled, channels last"] = stacked(function, last, last_x)
    if on_gpu:
        for name in list(contenders)[3:]:
            contenders[f"{name}, CUDA graph"] = torch_peers.as_graph(contenders[name])
    return {name: finished(run) for name, run in contenders.items()}


def errors_of(contenders: Contenders, expected: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest relative difference of a map from the expected one, for each contender."""

    def difference(got: Any, wanted: np.ndarray) -> float:
        got = got.float().cpu() if hasattr(got, "cpu") else got
        return float(np.linalg.norm(np.asarray(got).reshape(wanted.shape) - wanted) / np.linalg.norm(wanted))

    return {
        contender: max(difference(values, expected[name]) for name, values in run().items())
        for contender, run in contenders.items()
    }


def measure(
    batch: int, config: Config, rounds: int, peers: bool, ceilings: tuple[float, float]
) -> list[dict[str, Any]]:
    """One row per contender, for one batch size."""
    exact = jaxvae.ConvVAE((64, 64, 1))
    model = jaxvae.ConvVAE((64, 64, 1), dtype=jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32)
    # Three times the usual weights: near the prior, the KL's gradient is mostly rounding error in float32.
    params = jaxvae.init(exact, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    params = jax.tree.map(lambda kernel: 3 * kernel, params)
    images = np.random.default_rng(0).random((batch, 64, 64, 1), np.float32)
    contenders: Contenders = {"jaxvae": jax_contender(model, params, images, config.precision)}
    if peers:
        contenders |= torch_contenders(params, images, config.precision, compiled=not config.quick)
    first = {name: seconds_of(run) for name, run in contenders.items()}
    expected = {name: np.asarray(map) for name, map in jax_contender(exact, params, images, "float32")().items()}
    errors = errors_of(contenders, expected)
    for name, error in errors.items():
        if not error < TOLERANCE[config.precision]:
            raise SystemExit(f"{name}: a map differs from jaxvae's in float32 by {error:.1e}; nothing was timed")
    timings = alternate(contenders, rounds=rounds if batch <= 256 else max(3, rounds // 4))
    flops, moved = work_per_batch(model, batch)
    least = max(flops / ceilings[0], moved / ceilings[1])
    return [
        {
            "batch": batch,
            "contender": name,
            "median_ms": 1e3 * timing.median,
            "minimum_ms": 1e3 * timing.minimum,
            "images_per_s": batch / timing.median,
            "times_jaxvae": timing.median / timings["jaxvae"].median,
            "of_ceiling": least / timing.median,
            "error": f"{errors[name]:.0e}",
            "first_s": first[name],
        }
        for name, timing in timings.items()
    ]


def main(config: Config) -> int:
    batches, rounds = ((1, 64), 4) if config.quick else (config.batch, config.rounds)
    wrong = complaint(config.device)
    if min(batches, default=0) < 1 or rounds < 1:
        wrong = "--batch, --rounds: must be at least 1"
    if wrong:
        print(f"bench_scores: {wrong}", file=sys.stderr)
        return 2
    # With bfloat16 only the networks use it; all other products use full precision.
    multiply_alike("tensorfloat32" if config.precision == "tensorfloat32" else "float32")
    peers = torch_facts(config.torch)
    ceilings = matrix_rate(config.precision), copy_rate()
    rows = []
    for batch in batches:
        rows += measure(batch, config, rounds, peers is not None, ceilings)
    heads = {
        "batch": "batch",
        "contender": "contender",
        "median_ms": "median ms",
        "minimum_ms": "minimum ms",
        "images_per_s": "images/s",
        "times_jaxvae": "times jaxvae",
        "of_ceiling": "of the ceiling",
        "error": "error",
        "first_s": "first call s",
    }
    flops, moved = work_per_batch(jaxvae.ConvVAE((64, 64, 1)), 64)
    context = {
        **machine(),
        **(peers or {}),
        "precision": config.precision,
        "matrix_gflop_per_s": ceilings[0] / 1e9,
        "copy_gbyte_per_s": ceilings[1] / 1e9,
        "mflop_per_image": flops / 64e6,
        "mbyte_per_batch_of_64": moved / 1e6,
    }
    publish(rows, heads, context, config.json)
    if config.plot is not None:
        plot(config.plot, rows)
    return 0


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Plot images per second against the batch size, one line per contender."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["contender"] for row in rows):
        line = [(row["batch"], row["images_per_s"]) for row in rows if row["contender"] == name]
        axes.loglog(*zip(*line, strict=True), marker="o", label=name, linewidth=2.5 if name == "jaxvae" else 1)
    axes.set(xlabel="batch size", ylabel="images per second", title="All maps of the paper's brain network")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
