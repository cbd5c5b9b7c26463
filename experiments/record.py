"""What an experiment leaves in results/: its rows, and under which circumstances they came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxvae import files
from jaxvae.machine import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]], *, command: str, seconds: float) -> None:
    """Writes results/NAME, a list of rows, and how they were made beside it, with `.context` before its `.json`."""
    files.write_json(RESULTS / name, rows)
    context = {"command": command, "seconds": round(seconds), **machine()}
    files.write_json((RESULTS / name).with_suffix(".context.json"), context)
