"""Error of each map in less than float32, in percent, on whatever device is there.

    python scripts/precision.py [--json FILE]
    python scripts/precision.py --device gpu

All maps of the paper's brain network, with smoothing and Combi, compared with those of the same device in float32. The
error is the norm of the difference over all pixels, divided by the norm of the map. One row per precision: those that
JAX's `jax_default_matmul_precision` selects on this device, and `ConvVAE(dtype=bfloat16)` with its other products in
float32. A processor multiplies in float32 whatever that setting is, so there the second is the only row.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from timing import Device, complaint, publish

import jaxvae
from jaxvae.machine import machine, product_precision
from jaxvae.scores import MAPS, PIXEL_SCORES


@dataclasses.dataclass(frozen=True)
class Config:
    """Compute all maps in each precision, compare."""

    batch: int = 64
    """images"""
    device: Device = "default"
    json: Path | None = None
    """file to write the rows to"""


def settings() -> dict[str, tuple[str, Any]]:
    """(jax_default_matmul_precision, dtype of the network) of each precision below float32 that this device has."""
    found: dict[str, tuple[str, Any]] = {}
    for setting in ("tensorfloat32", "bfloat16"):
        with jax.default_matmul_precision(setting):
            found.setdefault(product_precision(), (setting, jnp.float32))
    found.pop("float32", None)
    return {**found, "ConvVAE(dtype=bfloat16)": ("float32", jnp.bfloat16)}


def maps_of(params: Any, images: np.ndarray, setting: str, dtype: Any) -> dict[str, np.ndarray]:
    """All maps in one precision, in float64 on the host."""
    model = jaxvae.ConvVAE(images.shape[1:], dtype=dtype)
    with jax.default_matmul_precision(setting):
        found = jaxvae.score_batch(model, params, jnp.asarray(images), log_scale=jnp.float32(-0.5), maps=MAPS).maps
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def main(config: Config) -> int:
    wrong = complaint(config.device)
    if config.batch < 1:
        wrong = f"--batch {config.batch}: must be at least 1"
    if wrong:
        print(f"precision: {wrong}", file=sys.stderr)
        return 2
    images = np.random.default_rng(0).random((config.batch, 64, 64, 1), np.float32)
    model = jaxvae.ConvVAE(images.shape[1:])
    # Three times the usual weights: near the prior, the KL's gradient is mostly rounding error in float32.
    params = jaxvae.init(model, jaxvae.TrainConfig(), jaxvae.Hyperparams(), jax.random.key(0)).params
    params = jax.tree.map(lambda kernel: 3 * kernel, params)
    exact = maps_of(params, images, "float32", jnp.float32)
    rows = []
    for precision, setting in settings().items():
        found = maps_of(params, images, *setting)
        errors = {name: np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name]) for name in MAPS}
        rows.append({"precision": precision, **{name: 100 * float(error) for name, error in errors.items()}})
    heads = {"precision": "error in %", **{name: PIXEL_SCORES[name].label for name in MAPS}}
    publish(rows, heads, {**machine(), "batch": config.batch}, config.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__)))
