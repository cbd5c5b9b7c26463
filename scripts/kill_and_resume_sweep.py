"""Kills a sweep at random moments and shows that its table ends byte for byte like that of one nobody disturbed.

    python scripts/kill_and_resume_sweep.py --kills 10        # about five minutes on two cores

The process is killed (SIGKILL) after a random time between its start and its end, wherever it is, and started again
with the same command until it comes to its end; then a new one is begun, until there were enough kills.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tyro
from kills import survive

AXES = ["--seed", "0", "1", "--beta", "0.5", "1", "--latent-size", "2", "4", "--together", "2"]
FLAGS = ["--data", "phantom", "--size", "32", "--features", "4", "8", "--epochs", "8"]


def main(kills: int = 10, seed: int = 0) -> None:
    """Kill and resume.

    Args:
      kills: how often.
      seed: decides the moments.
    """
    with tempfile.TemporaryDirectory() as place:
        survive(
            lambda sweep: ["sweep", str(sweep), *FLAGS, *AXES],
            Path(place),
            kills=kills,
            seed=seed,
            progress=lambda sweep: f"{len(list(sweep.glob('parts/*.jsonl')))} parts",
            compare=compare,
        )


def compare(sweep: Path, undisturbed: Path) -> str:
    for name in ("plan.json", "table.jsonl", "table.csv"):
        if (sweep / name).read_bytes() != (undisturbed / name).read_bytes():
            sys.exit(f"{name} differs")
    return "plan and table are equal"


if __name__ == "__main__":
    tyro.cli(main)
