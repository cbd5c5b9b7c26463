"""Meshes of devices, arrays spread over them, and jobs of several processes.

A mesh has one axis: "run" for the runs of a population, or "data" for the images of a batch.
"""

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

RUN = "run"  # the axis of the runs of a population
DATA = "data"  # the axis of the images of a batch

Tree = TypeVar("Tree")
Result = TypeVar("Result")


def run_mesh(devices: int | None = None) -> Mesh:
    """A mesh with the axis "run" over the first devices of this process.

    Args:
      devices: how many; None: all.

    Raises:
      ValueError: this process has fewer devices.
    """
    if devices is not None and not 1 <= devices <= jax.local_device_count():
        count = jax.local_device_count()
        raise ValueError(f"devices={devices}: must be from 1 to {count}, the devices of this process")
    return Mesh(np.array(jax.local_devices()[:devices]), (RUN,), axis_types=(AxisType.Auto,))


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axis "data".

    Args:
      devices: such as `jax.local_devices()`. None: the devices of all processes.
    """
    return Mesh(np.array(jax.devices() if devices is None else devices), (DATA,), axis_types=(AxisType.Auto,))


def own_mesh(axis: str = DATA) -> Mesh | None:
    """A mesh of the devices of this process; None if it has one device."""
    if jax.local_device_count() == 1:
        return None
    return run_mesh() if axis == RUN else data_mesh(jax.local_devices())


def over(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the first axis, a multiple of the mesh's size."""
    return NamedSharding(mesh, PartitionSpec(*mesh.axis_names))


def spread(tree: Tree, mesh: Mesh) -> Tree:
    """Put arrays [R, ...] or [B, ...] on the mesh, split along the first axis.

    A `jax.ShapeDtypeStruct` gets the sharding.
    """
    return _put(tree, over(mesh))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Put whole arrays on every device of the mesh; see `spread`."""
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def shared_out(function: Callable[..., Result], mesh: Mesh | None, *, whole: tuple[bool, ...]) -> Callable[..., Result]:
    """A function that each device computes for its part of the runs or images.

    Args:
      mesh: None returns the function unchanged.
      whole: for each argument, whether each device gets all of it or its part of the first axis. The first axis of the
        result is split in the same way.
    """
    if mesh is None:
        return function
    part = PartitionSpec(*mesh.axis_names)
    parts = tuple(PartitionSpec() if each else part for each in whole)
    return jax.shard_map(function, mesh=mesh, in_specs=parts, out_specs=part, check_vma=False)


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    """Put arrays on devices; each of several processes has the whole arrays."""

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)

    return jax.tree.map(put, tree)


def filled(tree: Tree, count: int, mesh: Mesh | None) -> Tree:
    """Leaves [count, ...], padded with the first to a multiple of the mesh's size."""
    if mesh is None or count % mesh.size == 0:
        return tree
    whole = -(-count // mesh.size) * mesh.size

    def fill(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((whole, *leaf.shape[1:]), leaf.dtype)
        return leaf[jnp.arange(whole) % count]

    return jax.tree.map(fill, tree)


def cut(tree: Tree, count: int, mesh: Mesh | None) -> Tree:
    """The leaves without the padding of `filled`."""
    return tree if mesh is None or count % mesh.size == 0 else jax.tree.map(lambda leaf: leaf[:count], tree)


def join(where: str) -> tuple[int, int]:
    """Join a job of several processes. Call it before JAX is used.

    If a process is lost, all others end within half a minute.

    Args:
      where: "off" for one process; "auto" under SLURM, Open MPI, Kubernetes and on TPU pods; or HOST:PORT/I/N, the
        address of process 0, the number of this process and the number of processes. Start process 0 first: it waits a
        minute for the others, and the others give up after some seconds without an answer.

    Returns:
      The number of this process, and the number of processes.

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
                raise InputError("must be off, auto or HOST:PORT/I/N, with I below N")
            address, process, count = found[1], int(found[2]), int(found[3])
            rendezvous.meet(address, process, count)
            arguments = {"coordinator_address": address, "process_id": process, "num_processes": count}
            arguments["initialization_timeout"] = 60
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=20, shutdown_timeout_seconds=25)
    except InputError as error:
        raise ArgumentError("where", where, str(error)) from error
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            "where", where, f"the processes could not connect ({reason}); check the address and that all are started"
        ) from error
    return jax.process_index(), jax.process_count()


def wait_for_all(name: str) -> None:
    """Return when every process has made this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
