"""Devices and processes: the mesh, how arrays lie on it, and how processes find each other.

A mesh has one axis, "run" for the members of a population or "data" for the images of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxvae import rendezvous
from jaxvae.errors import ArgumentError, InputError
from jaxvae.types import Array

RUN = "run"  # The axis over which a population is spread.
DATA = "data"  # The axis over which a batch is spread.

Tree = TypeVar("Tree")
Result = TypeVar("Result")


def run_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the one axis "run": the devices of this process, or the first so many.

    Raises:
      ValueError: there are not so many.

    >>> run_mesh(1).shape["run"]
    1
    """
    if devices is not None and not 1 <= devices <= jax.local_device_count():
        raise ValueError(f"devices={devices}: this process has {jax.local_device_count()}; give 1 to that many")
    return Mesh(np.array(jax.local_devices()[:devices]), (RUN,), axis_types=(AxisType.Auto,))


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis "data": the devices of all processes, or those given, such as `jax.local_devices()`.

    >>> data_mesh(jax.devices()[:1]).shape["data"]
    1
    """
    return Mesh(np.array(jax.devices() if devices is None else devices), (DATA,), axis_types=(AxisType.Auto,))


def own_mesh(axis: str = DATA) -> Mesh | None:
    """A mesh with one axis, "data" or "run", of the devices of this process; None where there is one alone."""
    if jax.local_device_count() == 1:
        return None
    return run_mesh() if axis == RUN else data_mesh(jax.local_devices())


def over(mesh: Mesh) -> NamedSharding:
    """Of arrays whose first axis, of runs or of images, is shared out; its length is a multiple of the mesh's size."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def spread(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays [R, ...] or [B, ...] with their first axis spread over the mesh."""
    return _put(tree, over(mesh))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that every device of the mesh holds whole."""
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def shared_out(function: Callable[..., Result], mesh: Mesh | None, *, whole: tuple[bool, ...]) -> Callable[..., Result]:
    """A function that each device computes for its part of the runs or images, and as it is without a mesh.

    Args:
      whole: of each argument, whether every device has all of it, or its part of the first axis. Of the result, each
        device has its part.
    """
    if mesh is None:
        return function
    part = PartitionSpec(*mesh.axis_names)
    parts = tuple(PartitionSpec() if each else part for each in whole)
    return jax.shard_map(function, mesh=mesh, in_specs=parts, out_specs=part, check_vma=False)


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    """Arrays laid out so; where the mesh spans processes, each of them has the whole arrays and gives its part."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Array) -> Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)

    return jax.tree.map(put, tree)


def join(where: str) -> tuple[int, int]:
    """(number of this process, number of processes) of a job of several processes. Call it before JAX is used.

    A process that is lost ends all others within half a minute.

    Args:
      where: "off" for one process; "auto" under SLURM, Open MPI, Kubernetes and on TPU pods; else HOST:PORT/I/N, the
        address of process 0, the number of this process and the number of processes. Process 0 waits a minute for the
        others; the others give up after some seconds if process 0 does not answer, so start process 0 first.

    Raises:
      InputError: `where` is none of these, or the processes do not find each other.
    """
    if where == "off":
        return 0, 1
    arguments = {}
    try:
        if where != "auto":
            found = re.fullmatch(r"([^/]+:\d+)/(\d+)/(\d+)", where)
            if not found or not int(found[2]) < int(found[3]):
                raise InputError("must be off, auto or HOST:PORT/I/N with I below N")
            rendezvous.meet(found[1], int(found[2]), int(found[3]))
            arguments = {
                "coordinator_address": found[1],
                "process_id": int(found[2]),
                "num_processes": int(found[3]),
                "initialization_timeout": 60,
            }
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=20, shutdown_timeout_seconds=25)
    except InputError as error:
        raise ArgumentError("where", where, str(error)) from error
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError("where", where, f"the processes do not find each other ({reason})") from error
    return jax.process_index(), jax.process_count()


def wait_for_all(name: str) -> None:
    """Returns when every process has come to this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
