"""What an experiment leaves in results/: its rows, and under which circumstances they came about."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxvae import files

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]], *, command: str, seconds: float) -> None:
    """Writes results/NAME, a list of rows, and how they were made beside it, with `.context` before its `.json`."""
    files.write_json(RESULTS / name, rows)
    files.write_json(
        (RESULTS / name).with_suffix(".context.json"),
        {"command": command, "seconds": round(seconds), **machine()},
    )


def machine() -> dict[str, Any]:
    """Processor, accelerator and versions; no name of a host."""
    models = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(models) or None,
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
