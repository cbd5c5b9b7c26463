"""The memory that a population takes, and the memory that is free."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import jax.numpy as jnp

from jaxvae.models.model import Model, param_shapes, reconstruct
from jaxvae.ops.forms import name_here
from jaxvae.population.score_many import AT_ONCE

# Measured on the compiled programs of 1 to 8 runs (XLA's own count, jax 0.10.2, CPU), in copies of the parameters. The
# state of a run is its parameters and Adam's two moments. If runs are trained in turn, the states of finished runs are
# held beside the initial ones.
STATE, IN_TRAINING = 3, 2
# In copies of the outputs of all layers, per image of a batch.
FEATURES_IN_TRAINING, FEATURES_IN_SCORING = 2.5, 0.65


def population_bytes(
    model: Model, runs: int, *, side_by_side: int, batch_size: int, scored: int, image_bytes: int
) -> int:
    """Bytes that `fit_many` and then `score_many` hold at most.

    Args:
      runs: number of runs in the program.
      side_by_side: how many of them a device trains at once; they are scored one after the other.
      batch_size: images per step.
      scored: number of images that are scored.
      image_bytes: of all training and test images.

    >>> import jaxvae
    >>> model = jaxvae.DenseVAE((28, 28, 1))
    >>> round(population_bytes(model, 8, side_by_side=1, batch_size=128, scored=10_000, image_bytes=0) / 1e6)
    140
    """
    shapes, parameters = param_shapes(model), parameter_bytes(model)
    image = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
    forward = jax.make_jaxpr(lambda params, image: reconstruct(model, params, image).mean)
    features = _product_bytes(forward(shapes, image).jaxpr)
    states = STATE * runs if side_by_side >= runs else 2 * STATE * runs + STATE * side_by_side
    training = parameters * (states + IN_TRAINING * side_by_side)
    training += FEATURES_IN_TRAINING * features * batch_size * side_by_side
    scoring = parameters * STATE * runs + FEATURES_IN_SCORING * features * min(scored, AT_ONCE)
    return image_bytes + int(max(training, scoring))


def parameter_bytes(model: Model) -> int:
    """Bytes of one copy of a model's parameters, in float32."""
    return sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(model)))


def _product_bytes(program: Any) -> int:
    """Bytes of the results of all matrix products and convolutions in a program and its inner functions."""
    total = 0
    for equation in program.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            total += sum(4 * math.prod(result.aval.shape) for result in equation.outvars)
        inside = equation.params
        for branch, platforms in zip(inside.get("branches", ()), inside.get("branches_platforms") or (), strict=False):
            if platforms is None or name_here() in platforms:
                inside = branch
                break
        for inner in jax.tree.leaves(inside, is_leaf=lambda value: hasattr(value, "jaxpr")):
            total += _product_bytes(inner.jaxpr) if hasattr(inner, "jaxpr") else 0
    return total


def free_bytes() -> int | None:
    """Free memory of the device of JAX; None if it is unknown."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        meminfo = Path("/proc/meminfo")
        lines = meminfo.read_text().splitlines() if meminfo.exists() else []
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        return min([*found, *_left_to_the_container()], default=None)
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def _left_to_the_container(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Free memory under each limit on this container or job. Cached pages of files count as free.

    A limit applies to all groups below it, and a job is a group somewhere below the root, such as /slurm/job_7.
    """
    found = []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current") if kinds == "" else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            folder = groups / kinds / str(group).lstrip("/")
            try:
                limit, used = (int((folder / name).read_text()) for name in names)
                kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                found.append(limit - used + int(kept["total_inactive_file" if kinds else "inactive_file"]))
            except (OSError, ValueError, KeyError):
                continue  # The group is not visible from here, or its limit is "max": none.
    return found
