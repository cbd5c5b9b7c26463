"""Checkpoints, and a run opened from its folder. The only file that knows orbax.

A run is one folder:

    config.json      how it was made; enough to make it again
    metrics.jsonl    one record a logged step
    checkpoints/     last/ to go on from, best/ by validation where there is one
    scores/ report/  what was computed from it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxvae.errors import InputError
from jaxvae.models import MODELS, Model
from jaxvae.types import Params

State = TypeVar("State")


class Run(NamedTuple):
    """A trained run, opened."""

    model: Model
    params: Params
    config: dict[str, Any]  # config.json
    step: int  # of the checkpoint the parameters come from


def save(directory: str | os.PathLike[str], state: Any, *, keep: int = 2) -> None:
    """Write a state under its step number; the newest `keep` stay.

    A checkpoint appears whole or not at all: it is written under another name and renamed, so a process killed at any
    moment leaves the one before. Returns when the files are there.

    Args:
      directory: made if missing.
      state: any pytree with a `step`, such as a `TrainState`.
    """
    import orbax.checkpoint as ocp

    with _manager(directory, keep) as manager:
        manager.save(int(state.step), args=ocp.args.StandardSave(state), force=True)
        manager.wait_until_finished()


def restore(directory: str | os.PathLike[str], like: State) -> State:
    """The newest state in a folder, with the structure, dtypes and shardings of `like`.

    Args:
      like: a state, or the shapes of one (`jax.eval_shape(...)`).
    Raises:
      InputError: no checkpoint there, or one of another model.
    """
    import orbax.checkpoint as ocp

    step = _latest(directory)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    with _manager(directory) as manager:
        try:
            return manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, KeyError) as error:
            raise InputError(_of_another_model(directory, error)) from error


def load(run_directory: str | os.PathLike[str]) -> Run:
    """A run's model and parameters, from its folder alone; the best checkpoint where there is one, else the last.

    Raises:
      InputError: not a run folder, no checkpoint in it yet, or one of another model.
    """
    import orbax.checkpoint as ocp

    config = read_config(run_directory)
    model = model_from_config(config["model"])
    checkpoints = Path(run_directory) / "checkpoints"
    directory = checkpoints / "best" if (checkpoints / "best").is_dir() else checkpoints / "last"
    step = _latest(directory)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *model.image_shape)))["params"])
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"params": jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), shapes)}
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    with ocp.CheckpointManager(_absolute(directory)) as manager:
        try:
            restored = manager.restore(
                step, args=ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
            )
        except (ValueError, KeyError) as error:
            raise InputError(_of_another_model(directory, error)) from error
    return Run(model, restored["params"], config, step)


def model_to_config(model: Model) -> dict[str, Any]:
    """A model as plain JSON values."""
    fields = {name: getattr(model, name) for name in type(model).__dataclass_fields__ if name not in ("parent", "name")}
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"]).name
    return {"name": type(model).__name__, **fields}


def model_from_config(config: Mapping[str, Any]) -> Model:
    """The model that `model_to_config` described."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
    name = fields.pop("name")
    if name not in MODELS:
        raise InputError(f"config.json: model {name!r} is unknown; this version knows {', '.join(MODELS)}")
    if "dtype" in fields:
        fields["dtype"] = jnp.dtype(fields["dtype"]).type
    return MODELS[name](**fields)


def read_config(run_directory: str | os.PathLike[str]) -> dict[str, Any]:
    """config.json of a run.

    Raises:
      InputError: no such folder, not a run, or not JSON.
    """
    path = Path(run_directory) / "config.json"
    if not path.is_file():
        what = "has no config.json" if path.parent.is_dir() else "does not exist"
        raise InputError(f"{os.fspath(run_directory)}: {what}; make a run with `jaxvae train {path.parent} --data ...`")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); restore it or train into another folder") from error


def _manager(directory: str | os.PathLike[str], keep: int | None = None) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(_absolute(directory), options=options)


def _absolute(directory: str | os.PathLike[str]) -> Path:
    return Path(directory).absolute()  # Orbax accepts a relative path and then fails to restore from it.


def latest_step(directory: str | os.PathLike[str]) -> int | None:
    """The step of the newest checkpoint in a folder, None where there is none."""
    steps = [int(path.name) for path in _absolute(directory).glob("*") if path.name.isdigit() and path.is_dir()]
    return max(steps, default=None)


def _latest(directory: str | os.PathLike[str]) -> int:
    step = latest_step(directory)
    if step is None:
        raise InputError(f"{os.fspath(directory)}: no checkpoint there; run `jaxvae train` on this folder first")
    return step


def _of_another_model(directory: str | os.PathLike[str], error: Exception) -> str:
    first = str(error).strip().splitlines()[0]
    return f"{os.fspath(directory)}: the checkpoint is of another model than config.json describes ({first[:120]})"
