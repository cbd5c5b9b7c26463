"""The processor, accelerator and versions of a measurement."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


def machine() -> dict[str, Any]:
    """The hardware and the versions to write beside a measured number.

    >>> sorted(machine())[:4]
    ['cores', 'device', 'flax', 'jax']
    """
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
