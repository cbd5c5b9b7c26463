"""Benchmark of all maps of a batch, with smoothing and Combi, beside PyTorch if it is installed.

    python scripts/bench_scores.py                        # batches of 1 to 1024: minutes on two cores
    python scripts/bench_scores.py --quick                # batches of 1 and 64, no torch.compile: seconds
    python scripts/bench_scores.py --batch 64 --json scores.json --plot scores.png
    python scripts/bench_scores.py --device gpu --batch 1 64 1024 16384 --precision tensorfloat32

The paper's brain network (64x64x1, 16-32-64-256, z 256), with the same random weights in every contender. Before
anything is timed, the maps are compared with jaxvae's in full float32; `error` is the largest relative difference of a
map. Contenders take turns; from batch 1025 on, one comes after the other, because each needs much memory. A contender
that fails is a row with its reason.

`of the ceiling` is the least time, divided by the time taken: see `ceilings.py`. Two ceilings, a large matrix product
and a large copy, are timed in the same run.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ceilings
import jax
import jax.numpy as jnp
import numpy as np
from timing import (
    Device,
    Failure,
    Makers,
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

MAPS = ("rec_error", "elbo_grad", "kl_grad", "rec_grad", "combi")
LOG_SCALE = -0.5
# The largest relative difference from full float32 at which a contender is timed. Single precision reaches 1e-5, and
# 1e-4 or more where a feature is so close to zero that its sign, and LeakyReLU's slope, differ.
TOLERANCE = {"float32": 1e-3, "tensorfloat32": 1e-1, "bfloat16": 5e-1, "default": 5e-1}
TOGETHER = 1024  # The largest batch at which all contenders are in memory at the same time.
HEADS = {
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
    precision: Literal["float32", "tensorfloat32", "bfloat16", "default"] = "float32"
    """of products and convolutions (tensorfloat32, default: on accelerators), or of all features (bfloat16)"""
    torch: bool = True
    """time the PyTorch peers too"""
    compiled: bool = True
    """with torch.compile, which takes some ten seconds per batch size and contender"""
    fastest: bool = False
    """of the PyTorch peers, only the released procedure and the fastest on a GPU"""
    json: Path | None = None
    """file for the rows"""
    plot: Path | None = None
    """file for a plot of images per second against batch size"""


def jax_contender(model: jaxvae.ConvVAE, params: Any, images: np.ndarray, precision: str) -> Run:
    """All maps on the device, as in `score_batches`."""
    on_device, log_scale = jnp.asarray(images), jnp.float32(LOG_SCALE)

    def run() -> dict[str, jax.Array]:
        with jax.default_matmul_precision("float32" if precision == "bfloat16" else precision):
            scores = jaxvae.score_batch(model, params, on_device, log_scale=log_scale, maps=MAPS)
        return jax.block_until_ready(scores.maps)

    return run


def torch_makers(params: Any, images: np.ndarray, precision: str, *, compiled: bool, fastest: bool) -> Makers:
    """The released procedure and the fastest ones we know, by name. Each has its own model and images."""
    import torch
    import torch_peers

    on_gpu = jax.default_backend() == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    if compiled:
        torch.compiler.reset()  # Each batch size compiles again, and torch limits compilations per function.

    def peer(
        function: Any, *, frozen: bool = True, last: bool = False, alone: bool = False, graph: bool = False
    ) -> Any:
        """`alone`: without autograd, and so for `torch.inference_mode` and CUDA graphs."""

        def make() -> Run:
            x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device, dtype)
            model = torch_peers.ConvVAE(params).to(device, dtype).requires_grad_(not frozen)
            if last:
                x, model = x.contiguous(memory_format=torch.channels_last), torch_peers.channels_last(model)

            def maps() -> Any:
                with torch.inference_mode(alone):
                    return function(model, x, LOG_SCALE)

            run = torch_peers.as_graph(maps) if graph else maps

            def waited() -> Any:
                maps = run()
                if on_gpu:
                    torch.cuda.synchronize()
                return maps

            return waited

        return make

    makers = {
        "PyTorch, released procedure": peer(torch_peers.released_scores, frozen=False),
        "PyTorch, two pullbacks": peer(torch_peers.two_pullbacks),
        "PyTorch, two pullbacks, channels last": peer(torch_peers.two_pullbacks, last=True),
    }
    stacked = {"PyTorch, stacked": torch_peers.stacked_pullbacks}
    if compiled:
        stacked["PyTorch, stacked, compiled"] = torch.compile(torch_peers.stacked_pullbacks, dynamic=False)
    for graph in (False, True)[: 1 + on_gpu]:
        for name, function in stacked.items():
            for last in (False, True):
                full = f"{name}{', channels last' * last}{', CUDA graph' * graph}"
                makers[full] = peer(function, last=last, alone=True, graph=graph)
    if not fastest:
        return makers
    # A graph saves nothing at large batches, and keeps its memory. A single image is faster in the usual layout.
    best = "PyTorch, stacked" + ", compiled" * compiled + ", channels last" * (len(images) > 1)
    best += ", CUDA graph" * (on_gpu and len(images) <= TOGETHER)
    return {name: makers[name] for name in ("PyTorch, released procedure", best)}


def difference(maps: Any, expected: Mapping[str, np.ndarray], rows: np.ndarray) -> float:
    """The largest relative difference of a map from the expected one, at some rows of the batch."""

    def of(name: str, wanted: np.ndarray) -> float:
        got = maps[name][rows]
        got = np.asarray(got.float().cpu() if hasattr(got, "cpu") else got).reshape(wanted.shape)
        return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))

    return max(of(name, wanted) for name, wanted in expected.items())


def measure(batch: int, config: Config, rounds: int, peers: bool, limits: ceilings.Ceilings) -> list[dict[str, Any]]:
    """One row per contender, for one batch size."""
    exact = jaxvae.ConvVAE((64, 64, 1))
    model = jaxvae.ConvVAE((64, 64, 1), dtype=jnp.bfloat16 if config.precision == "bfloat16" else jnp.float32)
    # Three times the usual weights: near the prior, the KL's gradient is mostly rounding error in float32.
    params = jaxvae.init(exact, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    params = jax.tree.map(lambda kernel: 3 * kernel, params)
    # Up to 64 different images, again and again; maps are compared at 64 places from the first to the last.
    few = np.random.default_rng(0).random((64, 64, 64, 1), np.float32)
    places = np.unique(np.linspace(0, batch - 1, 64).astype(int))
    expected = jax_contender(exact, params, few, "float32")()
    expected = {name: np.asarray(maps)[places % 64] for name, maps in expected.items()}
    images = few[np.arange(batch) % 64]
    makers: dict[str, Any] = {"jaxvae": lambda: jax_contender(model, params, images, config.precision)}
    if peers:
        compiled = config.compiled and not config.quick
        makers |= torch_makers(params, images, config.precision, compiled=compiled, fastest=config.fastest)
    errors = {}

    def check(name: str, run: Run) -> None:
        errors[name] = difference(run(), expected, places)
        if not errors[name] < TOLERANCE[config.precision]:
            raise ValueError(f"a map differs from jaxvae's in float32 by {errors[name]:.1e}")

    if batch <= TOGETHER:
        results = race(makers, rounds=rounds if batch <= 256 else max(3, rounds // 4), check=check)
    else:  # One after the other, so that each can have all of the memory.
        parts = [race({name: make}, rounds=3, check=check) for name, make in makers.items()]
        results = {name: result for part in parts for name, result in part.items()}
    least, ours = limits.least_seconds(ceilings.work_of_scores(model, batch)), results["jaxvae"]
    return [
        {"batch": batch, "contender": name, "failed": result.reason}
        if isinstance(result, Failure)
        else {
            "batch": batch,
            "contender": name,
            "median_ms": 1e3 * result.median,
            "minimum_ms": 1e3 * result.minimum,
            "images_per_s": batch / result.median,
            "times_jaxvae": result.median / ours.median if isinstance(ours, Timing) else None,
            "of_ceiling": least / result.median,
            "error": f"{errors[name]:.0e}",
            "first_s": result.first,
        }
        for name, result in results.items()
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
    multiply_alike("float32" if config.precision == "bfloat16" else config.precision)
    peers = torch_facts(config.torch)
    limits = ceilings.measured(config.precision)
    work = ceilings.work_of_scores(jaxvae.ConvVAE((64, 64, 1)), 64)
    context = environment(
        **(peers or {}),
        precision=config.precision,
        matrix_gflop_per_s=limits.flops / 1e9,
        copy_gbyte_per_s=limits.bandwidth / 1e9,
        mflop_per_image=work.flops / 64e6,
        mbyte_per_batch_of_64=work.moved / 1e6,
    )
    rows: list[dict[str, Any]] = []
    for batch in batches:
        rows += measure(batch, config, rounds, peers is not None, limits)
        save(rows, context, config.json)
    publish(rows, HEADS, context)
    if config.plot is not None:
        plot(config.plot, rows)
    return exit_code(rows)


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Plot images per second against the batch size, one line per contender."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["contender"] for row in rows):
        line = [(row["batch"], row["images_per_s"]) for row in rows if row["contender"] == name and "failed" not in row]
        axes.loglog(*zip(*line, strict=True), marker="o", label=name, linewidth=2.5 if name == "jaxvae" else 1)
    axes.set(xlabel="batch size", ylabel="images per second", title="All maps of the paper's brain network")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Config, description=__doc__)))
