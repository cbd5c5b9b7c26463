"""Checkpoints, and a run opened from its folder. The only file that knows orbax.

A run is one folder:

    config.json        how it was made; enough to make it again, and `images.contents`, a fingerprint of their pixels
    metrics.jsonl      one record per logged step
    checkpoints/       last/ to continue from, best/ by validation where there is one
    thresholds.json    what its healthy validation images reach, and the range of its training images
                       (`jaxvae.evaluation.thresholds`), measured when training ends
    trained_on.jsonl   which images it was trained on, by file and by pixels (`jaxvae.runs.trained_on`)
    evaluation.json    the metrics of its test images; those of others in on/NAME/
    scores/ report/    what was computed from it
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import files
from jaxvae.errors import InputError, command
from jaxvae.models import MODELS, Model, param_shapes
from jaxvae.runs import orbax_paths
from jaxvae.types import Params

State = TypeVar("State")

# What there must be in config.json for a run to be opened.
FACTS = {
    "data.data": str,
    "images": dict,
    "volumes?": dict | None,
    "model.name": str,
    "train": dict,
    "hparams.log_scale": int | float,
    "arithmetic": str,
    "patience": int | None,
    "seed": int,
    "epochs": int,
}


class Run(NamedTuple):
    """A trained run, opened."""

    model: Model
    params: Params
    config: dict[str, Any]  # config.json
    step: int  # of the checkpoint the parameters come from


def save(directory: str | os.PathLike[str], state: Any, *, keep: int = 2) -> None:
    """Write a state under its step number and read it back. In a job of several processes all of them call it.

    A checkpoint appears whole or not at all: it is written under another name and renamed. A process that is killed
    leaves the checkpoint before it.

    Args:
      directory: made if missing.
      state: any pytree with a `step`, such as a `TrainState`, or those of a population.
      keep: number of checkpoints that stay. With `keep=1` the step can be lower than that of the checkpoint before.

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
    if not _same_bits(restore(directory, state), state):
        raise InputError(
            f"{Path(directory) / str(step)}: differs from what was written; check the disk, or save into another folder"
        )


def restore(directory: str | os.PathLike[str], like: State) -> State:
    """The newest state in a folder, with the structure, dtypes and shardings of `like`.

    Args:
      like: a state, or the shapes of one (`jax.eval_shape(...)`).
    Raises:
      InputError: no checkpoint there, or one of another model.
    """
    import orbax.checkpoint as ocp

    step = latest_step(directory)
    if step is None:
        raise InputError(f"{os.fspath(directory)}: no checkpoint there; save one first")
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        # Of shapes alone nobody knows where they lay: here, not on the devices of whoever saved them.
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or here),
        like,
    )
    _refuse_another_model(directory, step, abstract, whole=True)
    with orbax_paths.readable(directory, step) as path, ocp.CheckpointManager(path) as manager:
        return manager.restore(step, args=ocp.args.StandardRestore(abstract))


def load(run_directory: str | os.PathLike[str]) -> Run:
    """A run's model and parameters, from its folder alone; the best checkpoint where there is one, else the last.

    Raises:
      InputError: not a run folder, no checkpoint in it yet, or one of another model.
    """
    import orbax.checkpoint as ocp

    config = read_config(run_directory)
    model = model_from_config(config["model"])
    directory, step = chosen(run_directory)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {
        "params": jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), param_shapes(model))
    }
    _refuse_another_model(directory, step, target)
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    restore_params = ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
    with orbax_paths.readable(directory, step) as path, ocp.CheckpointManager(path) as manager:
        restored = manager.restore(step, args=restore_params)
    return Run(model, restored["params"], config, step)


def chosen(run_directory: str | os.PathLike[str]) -> tuple[Path, int]:
    """Folder and step of the checkpoint that `load` opens.

    Raises:
      InputError: there is none yet.
    """
    for directory in (Path(run_directory) / "checkpoints" / name for name in ("best", "last")):
        step = latest_step(directory)
        if step is not None:
            return directory, step
    raise InputError(f"{run_directory}: has no checkpoint yet; train it with the command that began it")


def model_to_config(model: Model) -> dict[str, Any]:
    """A model as plain JSON values."""
    known = dataclasses.fields(model)  # pyright: ignore[reportArgumentType]
    fields = {field.name: getattr(model, field.name) for field in known if field.name not in ("parent", "name")}
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    return {"name": type(model).__name__, **fields, **lists}


def model_from_config(config: Mapping[str, Any]) -> Model:
    """The model that `model_to_config` described.

    Raises:
      InputError: this version has no such model, or one with other settings.
    """
    name = config.get("name") if isinstance(config, Mapping) else None
    if not isinstance(name, str) or name not in MODELS:
        raise InputError(f"config.json: model {name!r} is unknown; this version knows {', '.join(MODELS)}")
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items() if key != "name"
    }
    try:
        if "dtype" in fields:
            fields["dtype"] = jnp.dtype(fields["dtype"]).type
        return MODELS[name](**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.json: this version cannot make that {name} ({error}); train it anew") from error


def read_config(run_directory: str | os.PathLike[str]) -> dict[str, Any]:
    """config.json of a run.

    Raises:
      InputError: no such folder, not a run, not JSON, or of another version of jaxvae.
    """
    run = Path(run_directory)
    path = run / "config.json"
    if not path.is_file():
        if run.exists():
            raise InputError(f"{run}: is no run (no config.json in it); name a folder that `jaxvae train` has made")
        raise InputError(f"{run}: no such folder; make one with {command('train', run, '--data', '...')}")
    return files.read_json(path, FACTS, way_out="restore it, or train into another folder")


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The step of the newest checkpoint in a folder, None where there is none."""
    steps = [
        int(path.name) for path in orbax_paths.absolute(directory).glob("*") if path.name.isdigit() and path.is_dir()
    ]
    return max(steps, default=None)


def remove_later(directory: str | os.PathLike[str], step: int) -> None:
    """Removes the checkpoints of later steps; killed at any moment, it leaves none in part."""
    for left in orbax_paths.absolute(directory).glob(".removed-*"):
        shutil.rmtree(left, ignore_errors=True)
    for path in orbax_paths.absolute(directory).glob("*"):
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path.rename(path.with_name(f".removed-{path.name}")), ignore_errors=True)


def _refuse_another_model(directory: str | os.PathLike[str], step: int, wanted: Any, *, whole: bool = False) -> None:
    """Compares names and shapes beforehand, as Orbax restores what it lacks as None and says the rest in many lines."""
    import orbax.checkpoint as ocp

    with (
        orbax_paths.readable(directory, step) as path,
        ocp.CheckpointManager(path, item_handlers=ocp.StandardCheckpointHandler()) as manager,
    ):
        found = _shapes(manager.item_metadata(step).tree)
    for name, shape in _shapes(wanted).items():
        if found.get(name) != shape:
            lack = f"has {name} of shape {found[name]}" if name in found else f"has no {name}"
            raise InputError(
                f"{Path(directory) / str(step)}: a checkpoint of another model, it {lack} where {shape} is wanted; "
                "restore the config.json it was made with"
            )
    known = {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(wanted)}
    if whole and (left := found.keys() - known):
        raise InputError(
            f"{Path(directory) / str(step)}: a checkpoint of another state, it has {min(left)} too; restore all of it"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{"params.encoder_0": (4, 4, 1, 16)}; keys are left out, which Orbax stores as the numbers in them."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    }


def _same_bits(one: Any, other: Any) -> bool:
    """Whether the arrays of two trees are equal bit for bit, as far as this process has them."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for pair in pairs for a, b in zip(*map(_bytes, pair), strict=True))


def _bytes(leaf: Any) -> list[np.ndarray]:
    """The bytes of an array, of each part that is on a device of this process."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    parts = [shard.data for shard in leaf.addressable_shards] if isinstance(leaf, jax.Array) else [leaf]
    return [np.frombuffer(np.ascontiguousarray(part).tobytes(), np.uint8) for part in parts]
