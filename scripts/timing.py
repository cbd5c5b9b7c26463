"""Timing, memory, ceilings and output of the benchmarks."""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxvae.report import tables

Contenders = dict[str, Callable[[], Any]]
Device = Literal["default", "cpu", "gpu", "tpu"]
Precision = Literal["float32", "tensorfloat32"]


class Timing(NamedTuple):
    """Seconds per call."""

    median: float
    minimum: float


def alternate(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 2, turn_s: float = 0.1
) -> dict[str, Timing]:
    """Time every contender in alternating order, `rounds` turns each, so that a slow minute of the machine hits all.

    The time of a turn is the mean of as many calls as fill `turn_s` seconds. If a call is shorter than that, the turn
    begins with an untimed call, because threads of the previous contender may still spin on the processor. A contender
    returns when its work is done.
    """
    for run in contenders.values():
        for _ in range(warm_up):
            run()
    calls = {name: round(turn_s / seconds_of(run)) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            if calls[name] > 0:
                contenders[name]()
            seconds[name].append(seconds_of(contenders[name], max(1, calls[name])))
    return {name: Timing(statistics.median(times), min(times)) for name, times in seconds.items()}


def seconds_of(run: Callable[[], object], calls: int = 1) -> float:
    """Mean seconds per call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


@contextmanager
def highest_memory() -> Iterator[list[int]]:
    """Watch the highest anonymous memory of this process (RssAnon, without mapped files); yields [bytes]."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(line for line in lines if line.startswith("RssAnon"))
            peak[0] = max(peak[0], 1024 * int(now.split()[1]))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def complaint(device: Device) -> str | None:
    """Make JAX compute on a device. Returns an error message if it cannot, else None."""
    if device != "default":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(device, device))
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # AssertionError if the platform's plugin is not installed
        return f"--device {device}: JAX finds no such device; install jax[cuda13] or jax[tpu], or use --device cpu"
    return None


def multiply_alike(precision: Precision) -> None:
    """Set the precision of float32 products in JAX and PyTorch; tensorfloat32 rounds to ten bits on accelerators."""
    jax.config.update("jax_default_matmul_precision", precision)
    try:
        import torch
    except ImportError:
        return
    torch.set_float32_matmul_precision("high" if precision == "tensorfloat32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tensorfloat32"


def matrix_rate(precision: str = "float32") -> float:
    """FLOP/s of a large matrix product, the best of ten: 2048 x 2048 on a processor, 8192 x 8192 on an accelerator."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), jnp.bfloat16 if precision == "bfloat16" else jnp.float32)
    with jax.default_matmul_precision("float32" if precision == "bfloat16" else precision):
        return 2 * size**3 / _best_of_ten(jax.jit(jnp.matmul), matrix, matrix)


def copy_rate() -> float:
    """Bytes a second read and written in place, the best of ten: 8 MB on a processor (its caches), else 2 GB."""
    held = [jnp.ones(2**21 if jax.default_backend() == "cpu" else 2**29)]
    negate = jax.jit(lambda array: -array, donate_argnums=0)

    def run() -> jax.Array:
        held[0] = negate(held[0])
        return held[0]

    return 2 * held[0].nbytes / _best_of_ten(run)


def _best_of_ten(function: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(function(*arguments))
    return min(seconds_of(lambda: jax.block_until_ready(function(*arguments))) for _ in range(10))


def torch_facts(wanted: bool) -> dict[str, Any] | None:
    """Version and threads of PyTorch; None if not wanted or not installed, with a line on stderr."""
    if not wanted:
        return None
    try:
        import torch
    except ImportError:
        print("torch is not installed, only jaxvae is timed (`pip install torch`)", file=sys.stderr)
        return None
    return {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}


def publish(rows: list[dict[str, Any]], heads: dict[str, str], context: dict[str, Any], path: Path | None) -> None:
    """Print the table in Markdown and the machine it was measured on; write both to a JSON file if `path` is given."""
    print(tables.markdown(rows, heads, best={}))
    print("\n" + json.dumps(context))
    if path is not None:
        tables.write_json(path, rows, context)
