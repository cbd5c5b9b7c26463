"""How much memory a population takes, and how much there is."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import jax

from jaxvae.models import Model, param_shapes

# In copies of the parameters, measured on the compiled programs of 1 to 8 runs (XLA's own count, jax 0.10.2, CPU). A
# run is its parameters and Adam's two moments; where runs are trained in turn, those that are done lie beside those to
# come.
STATE, IN_TRAINING = 3, 2


def population_bytes(model: Model, runs: int, *, together: int, image_bytes: int) -> int:
    """What `fit_many` holds at once, but for the features of the batches of those side by side.

    Args:
      runs: of the program.
      together: how many of them train side by side.
      image_bytes: of the images that are trained on and judged.

    >>> import jaxvae
    >>> round(population_bytes(jaxvae.DenseVAE((28, 28, 1)), 8, together=1, image_bytes=0) / 1e6)
    138
    """
    parameters = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(model)))
    if together >= runs:
        return image_bytes + parameters * (STATE + IN_TRAINING) * runs
    return image_bytes + parameters * (2 * STATE * runs + (STATE + IN_TRAINING) * together)


def free_bytes() -> int | None:
    """Memory that is free where JAX computes; None where neither the device nor the system says."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        meminfo = Path("/proc/meminfo")
        lines = meminfo.read_text().splitlines() if meminfo.exists() else []
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        return min([*found, *_left_to_the_container()], default=None)
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def _left_to_the_container(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """What each limit on this container or job leaves it; the pages of files that it may drop count as free.

    A limit holds for all groups below it, and a job is a group somewhere below the root: /slurm/job_7 and so on.
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
                continue  # No such group is to be seen from here, or "max": no limit.
    return found
