"""Benchmark of the exact metrics, beside scikit-learn if it is installed. No JAX, one core.

    python scripts/bench_metrics.py                      # 10^6, 10^7 and 10^8 pixels: about three minutes
    python scripts/bench_metrics.py --quick              # 10^5 and 10^6 pixels: seconds
    python scripts/bench_metrics.py --pixels 5e7 --json timings.json      # with scikit-learn

Maps are float32, 64 x 64, with one lesion of 9 x 9 pixels each (2 % of all). Libraries take turns, so that a busy
moment of the machine slows both. Above 10^7 pixels scikit-learn takes minutes and only runs with `--pixels`.

`numpy.sort` takes nearly all of the time. On AMD Zen 4 its AVX-512 form is several times slower than its AVX2 form,
which `NPY_DISABLE_CPU_FEATURES=X86_V4` in the environment selects (NumPy 2.4; on such an EPYC, 2 s instead of 7 s for
10^8 pixels).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jaxvae.metrics.ranking import auroc_and_average_precision, best_dice
from jaxvae.metrics.region_overlap import aupro

SIDE, LESION = 64, 9
SCIKIT_LEARN_UP_TO = 10**7


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def pixels(text: str) -> int:
    """A number of pixels, `1e8` and `100000000` alike, rounded down to whole maps."""
    try:
        count = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be a number such as 1e8") from None
    if not SIDE**2 <= count <= 1e9:
        raise argparse.ArgumentTypeError(f"{text}: must be {SIDE**2} to 1e9, which takes 25 GB of memory")
    return int(count) // SIDE**2 * SIDE**2


def rounds(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return int(text)


def new_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written; give a file in a writable folder")
    return path


def arguments() -> argparse.Namespace:
    parser = Parser(description="Times jaxvae's metrics, beside scikit-learn's where it is installed.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--pixels", type=pixels, help="only this number of pixels, such as 1e8")
    size.add_argument("--quick", action="store_true", help="small sizes only; seconds")
    parser.add_argument("--rounds", type=rounds, default=3, help="timings of each contender (default 3)")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the timings to this file too")
    return parser.parse_args()


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(scores, masks), both [count / 64^2, 64, 64]: exponential scores, higher by one inside each map's lesion."""
    generator = np.random.default_rng(0)
    maps = count // SIDE**2
    corners = generator.integers(SIDE - LESION + 1, size=(2, maps, 1))
    rows, columns = (np.arange(SIDE) >= corners) & (np.arange(SIDE) < corners + LESION)
    masks = rows[:, :, None] & columns[:, None, :]
    scores = generator.standard_exponential((maps, SIDE, SIDE), dtype=np.float32)
    scores += masks
    return scores, masks


def scikit_learns(scores: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, labels = scores.ravel(), masks.ravel()
    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores))


def measure(count: int, repeats: int, with_scikit_learn: bool) -> list[dict[str, Any]]:
    contenders: list[tuple[str, str, Callable[[np.ndarray, np.ndarray], Any]]] = [
        ("AUROC + AP", "jaxvae", auroc_and_average_precision),
        ("best Dice", "jaxvae", best_dice),
        ("AUPRO", "jaxvae", aupro),
    ]
    if with_scikit_learn:
        contenders.insert(1, ("AUROC + AP", "scikit-learn", scikit_learns))
    scores, masks = draw(count)
    seconds, values = [[] for _ in contenders], [None for _ in contenders]
    for _ in range(repeats):
        for which, (_, _, function) in enumerate(contenders):
            start = time.perf_counter()
            values[which] = function(scores, masks)
            seconds[which].append(time.perf_counter() - start)
    return [
        {
            "metric": metric,
            "library": library,
            "pixels": count,
            "median_s": statistics.median(times),
            "minimum_s": min(times),
            "value": value,
        }
        for (metric, library, _), times, value in zip(contenders, seconds, values, strict=True)
    ]


def scikit_learn_version() -> str | None:
    try:
        return version("scikit-learn")
    except PackageNotFoundError:
        return None


def machine() -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    # NumPy chooses its sort, and with it most of the time, by these.
    numpy_build: Any = np.show_config(mode="dicts")
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "simd": " ".join(numpy_build["SIMD Extensions"].get("found", [])),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": scikit_learn_version() or "not installed, only jaxvae is timed",
    }


def main() -> None:
    options = arguments()
    usual = ("1e5", "1e6") if options.quick else ("1e6", "1e7", "1e8")
    sizes = [options.pixels] if options.pixels else [pixels(size) for size in usual]
    about = machine()
    for name, value in about.items():
        print(f"{name:>13}: {value}")
    print(f"\n{'metric':<12} {'library':<13} {'pixels':>12} {'median s':>9} {'minimum s':>10}")
    timings = []
    for size in sizes:
        beside = scikit_learn_version() is not None and (options.pixels or size <= SCIKIT_LEARN_UP_TO)
        part = measure(size, options.rounds, bool(beside))
        for one in part:
            print("{metric:<12} {library:<13} {pixels:>12,} {median_s:9.3f} {minimum_s:10.3f}".format(**one))
        ours, *theirs = (one["value"] for one in part if one["metric"] == "AUROC + AP")
        for value in theirs:
            print(f"{'':<12} largest difference {np.abs(np.subtract(ours, value)).max():.1e}")
        sys.stdout.flush()
        timings += part
    if options.json:
        unfinished = options.json.with_name(f".{options.json.name}.unfinished")
        unfinished.write_text(json.dumps({"machine": about, "rounds": options.rounds, "timings": timings}, indent=2))
        os.replace(unfinished, options.json)


if __name__ == "__main__":
    main()
