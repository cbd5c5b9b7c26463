"""RUN/fitted/METHOD.npz: what the methods in `scores.METHODS` have fitted on a run's healthy images.

Names of nested entries are joined with `/`. `step` is the checkpoint that the state was fitted with.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae import files
from jaxvae.errors import InputError
from jaxvae.scores import METHODS, SCORES

FOLDER = "fitted"
State = dict[str, Any]


def methods_of(maps: Sequence[str]) -> list[str]:
    """The methods of these scores that need a state."""
    names = dict.fromkeys(SCORES[name].method for name in maps)
    return [name for name in names if name is not None and METHODS[name].fitted]


def write(run_dir: Path, step: int, method: str, state: Mapping[str, Any]) -> None:
    """Write the state of a method, atomically.

    Raises:
      InputError: the folder cannot be written to.
    """
    leaves = jax.tree.leaves_with_path(dict(state))
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    (run_dir / FOLDER).mkdir(exist_ok=True)
    with files.replacing(run_dir / FOLDER / f"{method}.npz") as file:
        np.savez(file, **{"step": np.int64(step), **{f"state/{name}": array for name, array in arrays.items()}})


def read(run_dir: Path, step: int, method: str) -> State | None:
    """Read the state of a method. None if it is missing, damaged or of another checkpoint."""
    path = run_dir / FOLDER / f"{method}.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as opened:
            arrays = {name: opened[name] for name in opened.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
    if arrays.pop("step", None) != step:
        return None
    state: State = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")[1:]
        inner = state
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = jnp.asarray(array)  # Copied to the device once, not with every batch.
    return state


def read_all(run_dir: Path, step: int, maps: Sequence[str]) -> dict[str, State]:
    """The states of all methods that these scores need.

    Raises:
      InputError: one is missing.
    """
    found = {method: read(run_dir, step, method) for method in methods_of(maps)}
    for method, state in found.items():
        if state is None:
            names = ", ".join(score.name for score in METHODS[method].scores)
            way_out = "bring its training images back, or call `jaxvae.fit_scores` with healthy images"
            raise InputError(f"{run_dir}: {names} is not fitted on healthy images; {way_out}")
    return {method: state for method, state in found.items() if state is not None}
