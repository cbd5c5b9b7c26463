"""Devices and processes: the mesh, how the arrays of a population lie on it, and how processes find each other."""

from __future__ import annotations

import re
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvae.errors import InputError

RUN = "run"  # The axis over which a population is spread.

Tree = TypeVar("Tree")


def run_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the one axis "run": the devices of this process, or the first so many.

    >>> run_mesh(1).shape["run"]
    1
    """
    return Mesh(np.array(jax.local_devices()[:devices]), (RUN,), axis_types=(AxisType.Auto,))


def spread(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays [R, ...] with their runs spread over the mesh; R is a multiple of its size."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(RUN)))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that every device of the mesh holds whole."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def join(where: str) -> tuple[int, int]:
    """(number of this process, number of processes) of a job that spans several, which find each other here.

    To be called before JAX is used. A process that is lost ends all others within half a minute.

    Args:
      where: "off" for one process; "auto" under SLURM, Open MPI, Kubernetes and on TPU pods; else HOST:PORT/I/N, the
        address of process 0, the number of this one and how many there are.
    Raises:
      InputError: it is none of these, or nothing is found there.
    """
    if where == "off":
        return 0, 1
    arguments = {}
    if where != "auto":
        found = re.fullmatch(r"([^/]+:\d+)/(\d+)/(\d+)", where)
        if not found or not int(found[2]) < int(found[3]):
            raise InputError(f"--distributed {where}: is neither off, auto nor HOST:PORT/I/N with I below N")
        arguments = {
            "coordinator_address": found[1],
            "process_id": int(found[2]),
            "num_processes": int(found[3]),
            "initialization_timeout": 60,
        }
    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=20, shutdown_timeout_seconds=25)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--distributed {where}: the processes do not find each other ({reason})") from error
    return jax.process_index(), jax.process_count()


def wait_for_all(name: str) -> None:
    """Returns when every process has come to this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
