"""Kills a sweep at random moments and shows that its table ends byte for byte like that of one nobody disturbed.

    python scripts/kill_and_resume_sweep.py --kills 10        # about five minutes on two cores

The process is killed (SIGKILL) after a random time between its start and its end, wherever it is, and started again
with the same command until it comes to its end; then a new one is begun, until there were enough kills.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

AXES = ["--seed", "0", "1", "--beta", "0.5", "1", "--latent-size", "2", "4", "--together", "2"]
FLAGS = ["--data", "phantom", "--size", "32", "--features", "4", "8", "--epochs", "8"]


def main(kills: int = 10, seed: int = 0) -> None:
    """Kill and resume.

    Args:
      kills: how often.
      seed: decides the moments.
    """
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        undisturbed, sweep = Path(place) / "undisturbed", Path(place) / "sweep"
        started = time.perf_counter()
        finished(undisturbed, timeout=None)
        seconds = time.perf_counter() - started
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        done = ends = 0
        while done < kills or sweep.exists():
            timeout = moments.uniform(0, seconds) if done < kills else None
            if not finished(sweep, timeout):
                done += 1
                parts = len(list(sweep.glob("parts/*.jsonl")))
                print(f"kill {done} after {timeout:.1f} s, with {parts} parts there", flush=True)
                continue
            ends += 1
            for name in ("plan.json", "table.jsonl", "table.csv"):
                if (sweep / name).read_bytes() != (undisturbed / name).read_bytes():
                    sys.exit(f"{name} differs")
            print(f"end {ends}: plan and table are equal", flush=True)
            shutil.rmtree(sweep)
    print(f"{done} kills, {ends} sweeps: every table is byte for byte that of the undisturbed one")


def finished(sweep: Path, timeout: float | None) -> bool:
    """Whether it came to its end in time; if not, it was killed."""
    command = [sys.executable, "-m", "jaxvae", "sweep", str(sweep), *FLAGS, *AXES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:  # `run` has killed it
        return False
    if done.returncode != 0 or done.stderr:
        sys.exit(f"a sweep failed with exit code {done.returncode}:\n{done.stderr}")
    return True


if __name__ == "__main__":
    tyro.cli(main)
