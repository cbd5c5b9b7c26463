"""Everything that is worth measuring on a GPU or TPU, in parts, and one table of it.

    python scripts/bench_device.py gpu OUT [FASHION_MNIST_FOLDER] [--quick] [--minutes 8]

`bench_gpu.sh` and `bench_tpu.sh` call it. Each part is a process with a time limit and writes OUT/PART.json; its output
is in OUT/logs. A part that fails is a row of the table. The same command skips the parts that are finished, so it also
continues a run that was stopped or was out of time. OUT/results.json has all rows, the device and the versions. With
--quick all parts are small and run on any device.

Nothing is installed. JAX, flax, optax and numpy must be there, PyTorch should be. The figure needs all dependencies of
jaxvae, and the tests need pytest and hypothesis.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jaxvae import files  # noqa: E402
from jaxvae.report import tables  # noqa: E402

FACTS = """
import json, jax, flax, optax
from jaxvae.machine import machine
print(json.dumps({**machine(), "backend": jax.default_backend(), "driver": jax.devices()[0].client.platform_version}))
"""
TESTS = ("test_parity.py", "scores", "ops/test_convolutions.py", "ops/test_filters.py", "test_train.py", "population")
QUICK_TESTS = ("test_parity.py",)
COLUMNS = {
    "what": "what",
    "contender": "contender",
    "ms": "ms",
    "times_pytorch": "speed, times the best PyTorch",
    "of_ceiling": "of the ceiling",
    "failed": "failed",
}


@dataclass(frozen=True)
class Part:
    """One process. A benchmark writes its own rows; of another program, the time is the row.

    `cold`: its folder OUT/NAME is removed first, and with it everything that was compiled before.
    """

    name: str
    command: list[str]
    seconds: int
    writes_rows: bool = False
    env: dict[str, str] = field(default_factory=dict)
    cold: bool = False


def bench(name: str, out: Path, script: str, seconds: int, **settings: Any) -> Part:
    """A benchmark with its settings, called in Python, because tyro may be missing."""
    given = "".join(f"{key}={value!r}, " for key, value in settings.items())
    path = str(out / f"{name}.part.json")
    code = f"import sys, pathlib, {script} as b; sys.exit(b.main(b.Config({given}json=pathlib.Path({path!r}))))"
    return Part(name, [sys.executable, "-c", code], seconds, writes_rows=True)


def parts_of(platform: str, out: Path, data: Path | None, quick: bool) -> list[Part]:
    """All parts, the most important first."""
    on_gpu, usual = platform == "gpu", "tensorfloat32" if platform == "gpu" else "default"
    batches, rounds = ((1, 8), 2) if quick else ((1, 64, 1024, 16384), 6)
    scores: dict[str, Any] = {"batch": batches, "rounds": rounds, "torch": on_gpu, "fastest": True}
    train: dict[str, Any] = {"precision": usual, "rounds": rounds, "torch": on_gpu, "fastest": True, "quick": quick}
    sweep: dict[str, Any] = {"precision": usual, "rounds": 2 if quick else 3, "torch": False}
    sweep |= {"steps": 4 if quick else 40}
    conv, dense = ((1, 2), (1, 4)) if quick else ((1, 16), (1, 16, 64, 256))
    chosen = ("jaxvae's choice", "single runs")
    all_ways = chosen if quick else (*chosen, "side by side", "in turn")
    # In the other precisions PyTorch is timed without its compiler, which would take minutes.
    others = [
        bench(f"scores_{precision}", out, "bench_scores", 110, precision=precision, compiled=False, **scores)
        for precision in ("bfloat16", "float32")
    ]
    parts = [
        bench("scores", out, "bench_scores", 180, precision=usual, compiled=not quick, **scores),
        bench("train", out, "bench_train", 150, **train),
        bench("sweep_conv", out, "bench_sweep", 100, networks=("conv",), runs=conv, ways=all_ways, **sweep),
        bench("sweep_dense", out, "bench_sweep", 120, networks=("dense",), runs=dense, ways=chosen, **sweep),
        *([figure(out, data, quick)] if data else []),
        tests(on_gpu, quick),
        *others,
    ]
    # A processor may be shared, and slow.
    return [replace(part, seconds=600) for part in parts] if quick else parts


def figure(out: Path, data: Path, quick: bool) -> Part:
    """The FashionMNIST figure from a cold start."""
    command = [sys.executable, "-m", "experiments.fashion_mnist", "--data", str(data.resolve())]
    return Part("figure", [*command, "--out", str(out / "figure"), *["--quick"] * quick], 240, cold=True)


def tests(on_gpu: bool, quick: bool) -> Part:
    """The tests that matter on a device, in full precision, by four processes on a GPU."""
    paths = [str(ROOT / "tests" / path) for path in (QUICK_TESTS if quick else TESTS)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *paths]
    env = {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
    if not quick:
        env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    if on_gpu and not quick:
        env["XLA_FLAGS"] = "--xla_gpu_deterministic_ops=true"
        command += ["-n", "4", "--dist", "loadfile"] if importlib.util.find_spec("xdist") else []
    return Part("tests", command, 180, env=env)


def run(part: Part, out: Path, env: dict[str, str], limit: float) -> str | None:
    """Run one part. Returns why it failed, in one line, or None."""
    log, cache = out / "logs" / f"{part.name}.log", out / "cache"
    if part.cold:
        shutil.rmtree(out / part.name, ignore_errors=True)
        cache = out / part.name / "cache"
    env = {**env, "JAX_COMPILATION_CACHE_DIR": str(cache), **part.env}
    start = time.perf_counter()
    with log.open("w") as file:
        child = subprocess.Popen(part.command, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # Also the processes that it started.
                child.wait()
    seconds = time.perf_counter() - start
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = " ".join(lines[-1].split())[-140:] if lines else "no output"
    if code != 0:
        return f"stopped after {limit:.0f} s: {last}" if code is None else last
    if not part.writes_rows:
        row = {"contender": last if part.name == "tests" else "jaxvae", "ms": 1e3 * seconds}
        tables.write_json(out / f"{part.name}.part.json", [row], {})
    (out / f"{part.name}.part.json").replace(out / f"{part.name}.json")
    return None


def run_all(parts: list[Part], out: Path, env: dict[str, str], minutes: float) -> dict[str, str]:
    """Run the parts that are not finished. Returns the reason of each that failed or was not started."""
    end, failed = time.perf_counter() + 60 * minutes, {}
    (out / "logs").mkdir(parents=True, exist_ok=True)
    for part in parts:
        if (out / f"{part.name}.json").exists():
            print(f"{part.name}: finished before", flush=True)
            continue
        start = time.perf_counter()
        reason = "out of time; the same command continues"
        if end - start > 5:
            reason = run(part, out, env, min(part.seconds, end - start))
        if reason:
            failed[part.name] = reason
        outcome = f"failed: {reason}" if reason else "done"
        print(f"{part.name}: {outcome}, {time.perf_counter() - start:.0f} s", flush=True)
    return failed


def contents_of(parts: list[Part], out: Path) -> dict[str, Any]:
    """What each part wrote, also those that failed halfway."""
    found = {}
    for part in parts:
        for path in (out / f"{part.name}.part.json", out / f"{part.name}.json"):
            if path.exists():
                found[part.name] = json.loads(path.read_text())
    return found


def row_of(part: str, row: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """A row of a benchmark in the terms of the common table."""
    what, group = part, row.get("network")  # Populations are compared with PyTorch's training of one run.
    if "batch" in row:
        what = group = f"scores, batch {row['batch']}, {context['precision']}"
    elif "runs" in row:
        what = f"population of {row['runs']}, {row['network']}, per run and step"
    elif "network" in row:
        what = f"training, {row['network']}, per step"
    return {**row, "group": group, "what": what, "ms": row.get("median_ms", row.get("ms"))}


def summary(contents: dict[str, Any], failed: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the common table."""
    rows = [row_of(part, row, content["context"]) for part, content in contents.items() for row in content["rows"]]
    rows += [{"what": part, "contender": "all", "failed": reason} for part, reason in failed.items()]
    best: dict[str, float] = {}
    for row in rows:
        if row.get("group") and row["ms"] and row["contender"].startswith("PyTorch"):
            best[row["group"]] = min(row["ms"], best.get(row["group"], row["ms"]))
    for row in rows:
        if row.get("group") in best and row["ms"]:
            row["times_pytorch"] = best[row["group"]] / row["ms"]
    return [{key: row.get(key) for key in COLUMNS} for row in rows]


def environment_of(platform: str, quick: bool) -> dict[str, str]:
    """The environment of all parts."""
    paths = [str(ROOT), str(ROOT / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return env if quick else {**env, "JAX_PLATFORMS": {"gpu": "cuda"}.get(platform, platform)}


def facts_of(env: dict[str, str], out: Path) -> dict[str, Any]:
    """The device and the versions. Exits if either is missing, or if OUT has results of another device."""
    found = subprocess.run([sys.executable, "-c", FACTS], env=env, capture_output=True, text=True, check=False)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.strip()]
        device = env.get("JAX_PLATFORMS", "any device")
        raise SystemExit(
            f"bench_device: {sys.executable}: {lines[-1]}; it needs jax for {device}, flax, optax and numpy"
        )
    facts = json.loads(found.stdout.splitlines()[-1])
    path = out / "machine.json"
    if path.exists() and (other := json.loads(path.read_text())["device"]) != facts["device"]:
        raise SystemExit(f"bench_device: {out}: has results of {other}; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(path, facts)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=("gpu", "tpu"))
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("data", type=Path, nargs="?", help="folder of FashionMNIST's IDX files, for the figure")
    parser.add_argument("--quick", action="store_true", help="small parts, on any device")
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes for all parts")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the part that runs is ended too.
    out, env = given.out.resolve(), environment_of(given.platform, given.quick)
    facts, parts = facts_of(env, out), parts_of(given.platform, out, given.data, given.quick)
    print(f"{facts['device']}, jax {facts['jax']}: {len(parts)} parts, results in {out}", flush=True)
    failed = run_all(parts, out, env, given.minutes)
    contents = contents_of(parts, out)
    rows = summary(contents, failed)
    files.write_json(out / "results.json", {"context": facts, "rows": rows, "parts": contents})
    print("\n" + tables.markdown(rows, COLUMNS, best={}))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
