"""Checkpoints of training states. The only file that uses orbax."""

import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.errors import InputError
from jaxvae.runs import orbax_paths
from jaxvae.types import Params

State = TypeVar("State")


def save(directory: str | os.PathLike[str], state: Any, *, keep: int = 2) -> None:
    """Write a state under its step number and read it back, in all processes.

    A checkpoint appears whole or not at all: it is written under another name and renamed. If the process is killed,
    the checkpoint before it stays.

    Args:
      directory: made if missing.
      state: any pytree with a `step`, such as a `TrainState`, or those of a population.
      keep: number of checkpoints that stay. With `keep=1` the step may be lower than that of the checkpoint before.

    Raises:
      InputError: `directory` holds a checkpoint of that step, or with `keep` above 1 of a later one; `keep` is below 1;
        the files cannot be written, or differ from `state` when they are read back.
    """
    import orbax.checkpoint as ocp

    if keep < 1:
        raise InputError(f"keep={keep}: would leave no checkpoint; give 1 or more")
    step = int(np.max(state.step))
    # Clean up interrupted saves only when saving: while we read, another process may be writing.
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    with (
        orbax_paths.writable(directory, step),
        orbax_paths.orbax_path(directory) as path,
        ocp.CheckpointManager(path, options=options) as manager,
    ):
        steps = manager.all_steps()
        others = keep > 1 or len(steps) > 1
        if step in steps or (others and step < max(steps, default=step)):
            there = f"step {step} already" if step in steps else f"step {max(steps)}, and this one is of step {step}"
            raise InputError(f"{os.fspath(directory)}: holds a checkpoint of {there}; save into another folder")
        manager.save(step, args=ocp.args.StandardSave(state), force=True)
        manager.wait_until_finished()
    pairs = zip(jax.tree.leaves(restore(directory, state)), jax.tree.leaves(state), strict=True)
    if any(_bytes(found) != _bytes(saved) for found, saved in pairs):
        way_out = "check the disk, or save into another folder"
        raise InputError(f"{Path(directory) / str(step)}: differs from what was written; {way_out}")


def restore(directory: str | os.PathLike[str], like: State) -> State:
    """The newest state in a folder, with the structure and shardings of `like`.

    Args:
      like: a state, or the shapes of one (`jax.eval_shape(...)`).

    Raises:
      InputError: there is no checkpoint, or it is of another model.
    """
    import orbax.checkpoint as ocp

    step = latest_step(directory)
    if step is None:
        raise InputError(f"{os.fspath(directory)}: no checkpoint there; save one first")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        # Shapes have no sharding. Put them here, not on the devices of the process that saved them.
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here),
        like,
    )
    _refuse_another_model(directory, step, abstract, whole=True)
    with orbax_paths.readable(directory, step) as path, ocp.CheckpointManager(path) as manager:
        return manager.restore(step, args=ocp.args.StandardRestore(abstract))


def restore_params(directory: str | os.PathLike[str], step: int, shapes: Params) -> Params:
    """The parameters alone from the checkpoint of a step, on the first device.

    Args:
      shapes: names, shapes and dtypes of the parameters (`models.model.param_shapes`).

    Raises:
      InputError: the checkpoint is damaged or of another model.
    """
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {"params": jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), shapes)}
    _refuse_another_model(directory, step, target)
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    restore_params = ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
    with orbax_paths.readable(directory, step) as path, ocp.CheckpointManager(path) as manager:
        return manager.restore(step, args=restore_params)["params"]


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The step of the newest checkpoint in a folder, None if there is none."""
    folders = (path for path in orbax_paths.absolute(directory).glob("*") if path.is_dir())
    return max((int(path.name) for path in folders if path.name.isdigit()), default=None)


def remove_later(directory: str | os.PathLike[str], step: int) -> None:
    """Remove the checkpoints of later steps, one whole checkpoint at a time."""
    for left in orbax_paths.absolute(directory).glob(".removed-*"):
        shutil.rmtree(left, ignore_errors=True)
    for path in orbax_paths.absolute(directory).glob("*"):
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path.rename(path.with_name(f".removed-{path.name}")), ignore_errors=True)


def _refuse_another_model(directory: str | os.PathLike[str], step: int, wanted: Any, *, whole: bool = False) -> None:
    """Raise InputError if names or shapes differ. Orbax would restore None, or raise with many lines."""
    import orbax.checkpoint as ocp

    place = Path(directory) / str(step)
    with (
        orbax_paths.readable(directory, step) as path,
        ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler()) as manager,
    ):
        found = _shapes(manager.item_metadata(step).tree)
    for name, shape in _shapes(wanted).items():
        if shape is not None and found.get(name) != shape:
            lack = f"has {name} of shape {found[name]}" if name in found else f"has no {name}"
            problem = f"a checkpoint of another model, it {lack} where {shape} is wanted"
            raise InputError(f"{place}: {problem}; restore the config.json it was made with")
    if whole and (left := found.keys() - _shapes(wanted).keys()):
        raise InputError(f"{place}: a checkpoint of another state, it has {min(left)} too; restore all of it")


def _shapes(tree: Any) -> dict[str, tuple[int, ...] | None]:
    """Shapes by name: {"params.encoder_0": (4, 4, 1, 16)}. None for random keys, which Orbax stores as numbers."""
    leaves = {jax.tree_util.keystr(path, simple=True, separator="."): a for path, a in jax.tree.leaves_with_path(tree)}
    is_key = {name: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for name, leaf in leaves.items()}
    return {name: None if is_key[name] else tuple(leaf.shape) for name, leaf in leaves.items()}


def _bytes(leaf: Any) -> list[bytes]:
    """The bytes of each part of an array on the devices of this process."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    parts = [shard.data for shard in leaf.addressable_shards] if isinstance(leaf, jax.Array) else [leaf]
    return [np.asarray(part).tobytes() for part in parts]
