"""Timing, memory, devices and output of the benchmarks."""

# pyright: reportMissingImports=false

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from jaxvae.machine import machine
from jaxvae.report import tables

Run = Callable[[], Any]
Makers = Mapping[str, Callable[[], Run]]  # A contender is made when its turn comes, so that a failure is its own.
Device = Literal["default", "cpu", "gpu", "tpu"]
Precision = Literal["default", "float32", "tensorfloat32"]


class Timing(NamedTuple):
    """Seconds per call; the first call includes making the contender."""

    median: float
    minimum: float
    first: float


class Failure(NamedTuple):
    """A contender that cannot be timed, and why, in one line."""

    reason: str


def race(
    makers: Makers,
    *,
    rounds: int,
    check: Callable[[str, Run], None] | None = None,
    warm_up: int = 1,
    turn_s: float = 0.1,
) -> dict[str, Timing | Failure]:
    """Make contenders and time them in alternating order, `rounds` turns each, so that a slow minute hits all of them.

    The time of a turn is the mean of as many calls as fill `turn_s` seconds. If a call is shorter than that, the turn
    begins with an untimed call, because threads of the previous contender may still spin on the processor. A contender
    returns when its work is done. If it raises an error, or `check(name, contender)` does, it leaves the race.
    """
    runs: dict[str, Run] = {}
    first: dict[str, float] = {}
    calls: dict[str, int] = {}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    results: dict[str, Timing | Failure] = {}

    def prepare(name: str) -> None:
        start = time.perf_counter()
        run = makers[name]()
        run()
        first[name] = time.perf_counter() - start
        if check is not None:
            check(name, run)
        for _ in range(warm_up):
            run()
        calls[name] = round(turn_s / seconds_of(run))
        runs[name] = run

    def take_turn(name: str) -> None:
        if calls[name] > 0:
            runs[name]()
        seconds[name].append(seconds_of(runs[name], max(1, calls[name])))

    def attempt(step: Callable[[str], None], name: str) -> None:
        try:
            step(name)
        except Exception as error:
            results[name] = Failure(reason_of(error))
            runs.pop(name, None)

    for name in makers:
        print(f"{name} ...", file=sys.stderr)
        free()
        attempt(prepare, name)
    for number in range(rounds):
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            attempt(take_turn, name)
    for name in runs:
        results[name] = Timing(statistics.median(seconds[name]), min(seconds[name]), first[name])
    return {name: results[name] for name in makers}


def reason_of(error: Exception) -> str:
    """The error in one short line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= 140 else f"{line[:137]}..."


def free() -> None:
    """Return the memory of dropped arrays to the device, so that the next contender can have it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        with suppress(RuntimeError):  # After a failed capture of a CUDA graph, PyTorch may refuse.
            torch.cuda.empty_cache()


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
    # By default JAX takes most of a GPU's memory when it starts, and leaves PyTorch too little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if device != "default":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(device, device))
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # AssertionError if the platform's plugin is not installed
        return f"--device {device}: JAX finds no such device; install jax[cuda13] or jax[tpu], or use --device cpu"
    return None


def multiply_alike(precision: Precision) -> None:
    """Set the precision of float32 products in JAX and PyTorch.

    tensorfloat32 rounds to ten bits on accelerators. JAX's default is TF32 on recent NVIDIA GPUs and bfloat16 on TPUs.
    """
    jax.config.update("jax_default_matmul_precision", precision)
    try:
        import torch
    except ImportError:
        return
    exact = precision == "float32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.benchmark = True  # cuDNN times its algorithms once per shape; shapes do not change here.


def torch_facts(wanted: bool) -> dict[str, Any] | None:
    """Versions and threads of PyTorch; None if not wanted or not installed, with a line on stderr."""
    if not wanted or jax.default_backend() == "tpu":
        return None
    try:
        import torch
    except ImportError:
        print("torch is not installed, only jaxvae is timed (`pip install torch`)", file=sys.stderr)
        return None
    return {"torch": torch.__version__, "torch_cuda": torch.version.cuda, "torch_threads": torch.get_num_threads()}


def environment(**more: Any) -> dict[str, Any]:
    """The machine, its driver, the versions and XLA's flags, to write beside the rows."""
    platform = " ".join(jax.devices()[0].client.platform_version.split())
    return {**machine(), "platform": platform, "xla_flags": os.environ.get("XLA_FLAGS", ""), **more}


def save(rows: list[dict[str, Any]], context: dict[str, Any], path: Path | None) -> None:
    """Write the rows so far, if `path` is given, so that a benchmark that is stopped has not measured in vain."""
    if path is not None:
        tables.write_json(path, rows, context)


def publish(
    rows: list[dict[str, Any]], heads: dict[str, str], context: dict[str, Any], path: Path | None = None
) -> None:
    """Print the table in Markdown and the machine it was measured on; write both to a JSON file if `path` is given."""
    if any("failed" in row for row in rows):
        heads = {**heads, "failed": "failed"}
    print(tables.markdown(rows, heads, best={}))
    print("\n" + json.dumps(context))
    save(rows, context, path)


def exit_code(rows: list[dict[str, Any]]) -> int:
    """1 if jaxvae itself failed, with its reason on stderr. PyTorch may fail."""
    reasons = [row["failed"] for row in rows if "failed" in row and not row["contender"].startswith("PyTorch")]
    print(*reasons, sep="\n", end="\n" * bool(reasons), file=sys.stderr)
    return int(bool(reasons))
