"""The processor, accelerator, precision and versions of a measurement."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision

# What a device computes for float32 arrays, if not float32.
TF32 = {Precision.DEFAULT: "tensorfloat32", Precision.HIGH: "tensorfloat32"}  # NVIDIA, from compute capability 8.0 on
TPU = {Precision.DEFAULT: "bfloat16", Precision.HIGH: "bfloat16_3x"}


def machine() -> dict[str, Any]:
    """The hardware, the versions and the precision to write beside a measured number.

    >>> sorted(machine())[:4]
    ['cores', 'device', 'flax', 'jax']
    """
    models = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(models) or None,
        "device": jax.devices()[0].device_kind,
        "precision": product_precision(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }


def product_precision(dtype: Any = jnp.float32, device: Any = None) -> str:
    """The precision of matrix products and convolutions, with JAX's present settings.

    Args:
      dtype: of the arrays. Arrays of 16 bits are multiplied as they are.
      device: None stands for the first one of this process.

    Returns:
      float32; tensorfloat32, with factors rounded to 10 bits; bfloat16, to 7 bits; bfloat16_3x, a sum of three such
      products; another dtype; or the name of a `jax.lax.DotAlgorithmPreset`, if JAX's default is one.
    """
    if jnp.dtype(dtype) != jnp.float32:
        return jnp.dtype(dtype).name
    setting, device = jax.default_matmul_precision.value or "default", device or jax.devices()[0]
    if device.platform == "cpu":
        return "float32"  # XLA ignores the setting there, or refuses it.
    if setting not in ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32"):
        return setting
    # An AMD card has a name such as gfx942 in place of a number, and computes in float32.
    capability = str(getattr(device, "compute_capability", ""))
    has_tf32 = capability.replace(".", "").isdigit() and float(capability) >= 8
    rounded = TPU if device.platform == "tpu" else TF32 if has_tf32 else {}
    return rounded.get(Precision(setting), "float32")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
