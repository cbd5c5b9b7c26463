"""What an experiment leaves in results/: its rows, and under which circumstances they came about."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.machine import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]], *, seconds: Sequence[float | None] | None) -> None:
    """Writes results/NAME, a list of rows, and how they were made beside it, with `.context` before its `.json`.

    Args:
      seconds: that each run took, whenever it was made, None where that is not known; None for all where rows are only
        tabulated anew, which leaves the context of those who made them.
    """
    files.write_json(RESULTS / name, rows)
    if seconds is None:
        return
    timed = [time for time in seconds if time is not None]
    command = shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    context = {"command": command, "runs": len(seconds), "runs_timed": len(timed), "seconds": round(sum(timed))}
    files.write_json((RESULTS / name).with_suffix(".context.json"), {**context, **machine()})
