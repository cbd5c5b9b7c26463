"""The mesh of devices, and how the arrays of a population lie on it."""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

RUN = "run"  # The axis over which a population is spread.

Tree = TypeVar("Tree")


def run_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the one axis "run": all devices of all hosts, or the first so many.

    >>> run_mesh(1).shape["run"]
    1
    """
    found = jax.devices()
    return Mesh(np.array(found[:devices]), (RUN,), axis_types=(AxisType.Auto,))


def spread(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays [R, ...] with their runs spread over the mesh; R is a multiple of its size."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(RUN)))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that every device of the mesh holds whole."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
